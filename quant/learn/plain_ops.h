// The operations of learning as plain tensor expressions: what each one computes, and what runs
// where there is no fused loop (devices other than the CPU, fp64). The same functions, one fused
// pass each, are in fused_ops.h; ops.h chooses between the two.
//
// Rows are the first dimension; T rows of tokens, N or n columns. Nothing here records gradients:
// each forward stands beside its backward, and autograd functions (differentiable.h) join them.
#pragma once

#include "quant/learn/grid.h"
#include "quant/tensor.h"

namespace qnpu::plain {

using torch::Tensor;

// y = step * clamp(round(x / scale), low, high) in `type`: integers with step 1.
Tensor fake_quant(const Tensor& x, const Grid& grid, float step, torch::ScalarType type);

struct FakeQuantGradient {
  Tensor dx;      // g where v = x / scale is in low .. high, else 0
  double dscale;  // sum of g * (inside: round(v) - v; outside: the clamped integer) (Eq. 1)
};
FakeQuantGradient fake_quant_backward(const Tensor& g, const Tensor& x, const Grid& grid);

// Each row with a scale of its own: scale [T, 1] = max_j |x[t, j]| / qmax, codes = round(x /
// scale).
struct RoundedRows {
  Tensor codes, scale;  // fp32 (fp64)
};
RoundedRows round_rows(const Tensor& x, float qmax);

// d/d(scale) of sum (fake_quant(x) - x)^2 / sum x^2. With v = x / scale and its integer q that is
// 2 / scale * sum (q - v) d / sum v^2, d = q - v inside the range, q outside.
double error_gradient(const Tensor& x, const Grid& grid);

// Columns [first, first + n) of a product's sums `acc` [T, N] (fp32 or fp64) become real, in
// `type`: y = fake_quant(acc * factor + bias), factor and bias [n] (bias may be undefined).
Tensor scale_columns(const Tensor& acc, int64_t first, const Tensor& factor, const Tensor& bias,
                     const Grid& grid, torch::ScalarType type);
// Into the same columns of `g` [T, N]: dy * scale where y's grid did not clip, else 0.
void scale_columns_backward(const Tensor& dy, const Tensor& acc, int64_t first,
                            const Tensor& factor, const Tensor& bias, const Tensor& scale,
                            const Grid& grid, Tensor& g);

void accumulate(const Tensor& add, double factor, Tensor& total);  // total += factor * add

// Of each of `heads` parts of a row: y = gamma * x * r, r = 1 / sqrt(mean(x^2) + eps);
// dx = r * (dy * gamma - x * r^2 * mean(dy * gamma * x)).
Tensor rms_norm(const Tensor& x, const Tensor& gamma, int heads, double eps);
Tensor rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& gamma, int heads,
                         double eps);
// sum over rows and heads of dy * x * r.
Tensor rms_norm_gamma_backward(const Tensor& dy, const Tensor& x, int heads, double eps);

// Per head [a, b] -> [a cos - b sin, b cos + a sin]; x [B * T, heads * hd], row t of a sequence
// takes row t of cos and sin [T, hd / 2]. sign -1 gives the transpose, which is the backward.
Tensor rope(const Tensor& x, const Tensor& cos, const Tensor& sin, int heads, float sign);

// y = fake_quant(silu(gate)) * up, fp32 (fp64 if the inputs are); straight through the grid.
Tensor silu_mul(const Tensor& gate, const Tensor& up, const Grid& grid);
struct SiluMulGradient {
  Tensor dgate, dup;
};
SiluMulGradient silu_mul_backward(const Tensor& dy, const Tensor& gate, const Tensor& up,
                                  const Grid& grid);

// Softmax of rows of attention scores [m, C] in fp32 or fp64: row r sees the first
// `visible` + r / group positions. log_sums [m] = log sum exp(scale * s);
// p = exp(scale * s - log_sum), in `type`, 0 for positions not seen.
Tensor log_sums(const Tensor& scores, int64_t visible, int64_t group, double scale);
Tensor probabilities(const Tensor& scores, int64_t visible, int64_t group, double scale,
                     const Tensor& log_sums, torch::ScalarType type);
// ds = scale * p * (dp - delta) in p's type, delta [m] = sum of dp * p.
Tensor softmax_backward(const Tensor& dp, const Tensor& p, int64_t visible, int64_t group,
                        double scale, const Tensor& delta);
Tensor row_dots(const Tensor& a, const Tensor& b);  // [m], fp32 or fp64

// Sum over rows of a loss of logits z = acc * scale (fp32 or fp64; scale [V] or undefined), and
// into `dacc` (of any type) factor * d(loss) / d(z) * scale. acc and teacher are lost.
//   cross entropy  -log softmax(z)[target]
//   KL             sum p (log p - log softmax(z)), p = softmax(teacher * teacher_scale)
double cross_entropy(const Tensor& acc, const Tensor& scale, const Tensor& targets, double factor,
                     Tensor& dacc);
double kl(const Tensor& acc, const Tensor& scale, const Tensor& teacher,
          const Tensor& teacher_scale, double factor, Tensor& dacc);

}  // namespace qnpu::plain
