// plain_ops.h with one pass over memory for each operation: rows are shared out to threads, and a
// row's loop is vectorised (row_kernels.h). For contiguous fp32 and bf16 tensors on the CPU. Sums
// over rows are added in one order, whatever the number of threads.
#pragma once

#include "quant/learn/plain_ops.h"

namespace qnpu::fused {

using plain::FakeQuantGradient;
using plain::SiluMulGradient;
using torch::Tensor;

Tensor fake_quant(const Tensor& x, const Grid& grid, float step, torch::ScalarType type);
FakeQuantGradient fake_quant_backward(const Tensor& g, const Tensor& x, const Grid& grid);
double error_gradient(const Tensor& x, const Grid& grid);
Tensor scale_columns(const Tensor& acc, int64_t first, const Tensor& factor, const Tensor& bias,
                     const Grid& grid, torch::ScalarType type);
void scale_columns_backward(const Tensor& dy, const Tensor& acc, int64_t first,
                            const Tensor& factor, const Tensor& bias, const Tensor& scale,
                            const Grid& grid, Tensor& g);
void accumulate(const Tensor& add, double factor, Tensor& total);
Tensor rms_norm(const Tensor& x, const Tensor& gamma, int heads, double eps);
Tensor rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& gamma, int heads,
                         double eps);
Tensor rope(const Tensor& x, const Tensor& cos, const Tensor& sin, int heads, float sign);
Tensor silu_mul(const Tensor& gate, const Tensor& up, const Grid& grid);
SiluMulGradient silu_mul_backward(const Tensor& dy, const Tensor& gate, const Tensor& up,
                                  const Grid& grid);
Tensor log_sums(const Tensor& scores, int64_t visible, int64_t group, double scale);
Tensor probabilities(const Tensor& scores, int64_t visible, int64_t group, double scale,
                     const Tensor& log_sums, torch::ScalarType type);
Tensor softmax_backward(const Tensor& dp, const Tensor& p, int64_t visible, int64_t group,
                        double scale, const Tensor& delta);
Tensor row_dots(const Tensor& a, const Tensor& b);
double cross_entropy(const Tensor& acc, const Tensor& scale, const Tensor& targets, double factor,
                     Tensor& dacc);
double kl(const Tensor& acc, const Tensor& scale, const Tensor& teacher,
          const Tensor& teacher_scale, double factor, Tensor& dacc);

}  // namespace qnpu::fused
