// Fused loops over rows of numbers, forward and backward, for values in fp32 or bf16; arithmetic is
// fp32. Formulas stand in plain_ops.h, which has the same operations as tensor expressions; the
// tests compare the two.
//
// X, Y, A stand for float or Bf16; the combinations that exist are instantiated in the sources.
#pragma once

#include <cstdint>

#include "quant/learn/grid.h"
#include "quant/learn/lanes.h"

namespace qnpu::lanes {

// y = step * clamp(round(x / scale), low, high): integers with step 1, rounded values with
// step = scale.
template <typename X, typename Y>
void fake_quant(const X* x, int64_t n, Grid grid, float step, Y* y);

// dx = g inside the grid's range, 0 outside. Returns the sum of g * d(fake_quant) / d(scale):
// inside round(v) - v with v = x / scale, outside the clamped integer (LSQ; method.md Eq. 1).
template <typename A, typename X>
double fake_quant_backward(const A* g, const X* x, int64_t n, Grid grid, X* dx);

// With v = x / scale and its integer q: sums of (q - v) d, d = q - v inside the range and q
// outside, and of v^2.
template <typename X>
void error_sums(const X* x, int64_t n, Grid grid, double& products, double& squares);

// Column n of a linear's sums becomes real: y = fake_quant(acc * factor + bias). bias may be null.
template <typename A>
void scale_columns(const float* acc, const float* factor, const float* bias, int64_t n, Grid grid,
                   A* y);

// g = dy * scale where y's grid did not clip, else 0.
template <typename A>
void scale_columns_backward(const A* dy, const float* acc, const float* factor, const float* bias,
                            const float* scale, int64_t n, Grid grid, A* g);

// total += add
template <typename A>
void accumulate(const A* add, int64_t n, float factor, float* total);

// One part of a row: y = gamma * x / sqrt(mean(x^2) + eps).
template <typename X>
void rms_norm(const X* x, const float* gamma, int64_t n, float eps, X* y);
template <typename X>
void rms_norm_backward(const X* dy, const X* x, const float* gamma, int64_t n, float eps, X* dx);

// One head [a, b] of size 2 n: [a cos - b sin, b cos + a sin]. With -sin: its transpose.
template <typename A>
void rope(const A* x, const float* cos, const float* sin, float sign, int64_t n, A* y);

// y = fake_quant(silu(gate)) * up; the gradient passes straight through where the grid does not
// clip.
template <typename A>
void silu_mul(const A* gate, const A* up, int64_t n, Grid grid, float* y);
template <typename A>
void silu_mul_backward(const float* dy, const A* gate, const A* up, int64_t n, Grid grid, A* dgate,
                       A* dup);

// p = exp(scale * s - log_sum) for the first `visible` of n, 0 behind; with the row's own log_sum,
// that is softmax.
float log_sum_of_exponentials(const float* s, int64_t visible, float scale);
template <typename A>
void probabilities(const float* s, int64_t visible, int64_t n, float scale, float log_sum, A* p);
// ds = scale * p * (dp - delta), 0 behind `visible`.
template <typename A>
void softmax_backward(const float* dp, const A* p, int64_t visible, int64_t n, float scale,
                      float delta, A* ds);

template <typename A>
float dot(const A* a, const A* b, int64_t n);

// Losses of one row of logits z = acc * scale (scale null: 1). Returned; into dacc goes
// factor * dLoss/dz * scale. acc and teacher are overwritten with z and its like.
//   cross entropy  -log softmax(z)[target]
//   KL             sum p (log p - log softmax(z)),  p = softmax(teacher * teacher_scale)
template <typename A>
double cross_entropy_row(float* acc, const float* scale, int64_t n, int64_t target, float factor,
                         A* dacc);
template <typename A>
double kl_row(float* acc, const float* scale, float* teacher, const float* teacher_scale, int64_t n,
              float factor, A* dacc);

}  // namespace qnpu::lanes
