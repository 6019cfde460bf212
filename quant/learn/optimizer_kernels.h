// Fused loops of the optimizer; optimizer_ops.h has what they compute.
#pragma once

#include <cstdint>

#include "quant/learn/lanes.h"

namespace qnpu {

// Adam (Kingma, Ba 2015): m and v are running means of g and g^2,
// x -= rate * (m / correct_m) / (sqrt(v / correct_v) + epsilon).
struct AdamStep {
  float rate = 0.0f;
  float beta_m = 0.9f;
  float beta_v = 0.99f;
  float correct_m = 1.0f;  // 1 - beta_m^t: the means begin at zero
  float correct_v = 1.0f;
  float epsilon = 1e-12f;
};

namespace lanes {

struct Bounds {
  float low, high;  // smallest and largest integer
};

// One row of weights in units of their scale (optimizer_ops.h), and the integers they round to.
template <typename A>
void adam_row(float* x, float* g, int64_t n, const AdamStep& step, Bounds bounds, float* m,
              float* v, A* codes);

// Sum of g * integer; with `fixed` inside the range g * (integer - x).
template <typename A>
double scale_gradient(const float* g, const float* x, const A* codes, int64_t n, Bounds bounds,
                      bool fixed);

}  // namespace lanes
}  // namespace qnpu
