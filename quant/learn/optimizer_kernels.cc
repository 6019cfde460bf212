#include "quant/learn/optimizer_kernels.h"

#include <cmath>

#include "base/vectorize.h"

namespace qnpu::lanes {
namespace {

inline float adam_one(float x, float g, const AdamStep& s, float& m, float& v) {
  m = s.beta_m * m + (1.0f - s.beta_m) * g;
  v = s.beta_v * v + (1.0f - s.beta_v) * g * g;
  return x - s.rate * (m / s.correct_m) / (std::sqrt(v / s.correct_v) + s.epsilon);
}

}  // namespace

template <typename A>
QNPU_VECTORIZE void adam_row(float* x, float* g, int64_t n, const AdamStep& step, Bounds bounds,
                             float* m, float* v, A* codes) {
  const AdamStep s = step;
  const float low = bounds.low, high = bounds.high;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    x[i] = clamp(adam_one(x[i], g[i], s, m[i], v[i]), low - 0.5f, high + 0.5f);
    g[i] = 0.0f;
    store(codes[i], clamp(round_half_even(x[i]), low, high));
  }
}

template <typename A>
QNPU_VECTORIZE double scale_gradient(const float* g, const float* x, const A* codes, int64_t n,
                                     Bounds bounds, bool fixed) {
  const float low = bounds.low, high = bounds.high;
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const float q = load(codes[i]);
    const bool moves = fixed && x[i] >= low && x[i] <= high;
    sum += g[i] * (moves ? q - x[i] : q);
  }
  return sum;
}

template void adam_row(float*, float*, int64_t, const AdamStep&, Bounds, float*, float*, float*);
template void adam_row(float*, float*, int64_t, const AdamStep&, Bounds, float*, float*, Bf16*);
template double scale_gradient(const float*, const float*, const float*, int64_t, Bounds, bool);
template double scale_gradient(const float*, const float*, const Bf16*, int64_t, Bounds, bool);

}  // namespace qnpu::lanes
