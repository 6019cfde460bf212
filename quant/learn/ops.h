// Every operation of plain_ops.h, by one fused pass where there is one.
#pragma once

#include "quant/learn/fused_ops.h"
#include "quant/learn/plain_ops.h"
#include "quant/matmul.h"

namespace qnpu::ops {

using plain::FakeQuantGradient;
using plain::SiluMulGradient;
using torch::Tensor;

inline bool fusable(const Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == torch::kFloat32 || x.scalar_type() == torch::kBFloat16);
}

#define QNPU_CHOOSE(name)                                                  \
  template <typename X, typename... Rest>                                  \
  auto name(X&& x, Rest&&... rest) {                                       \
    return fusable(x) ? fused::name(x, rest...) : plain::name(x, rest...); \
  }
QNPU_CHOOSE(fake_quant)
QNPU_CHOOSE(fake_quant_backward)
QNPU_CHOOSE(error_gradient)
QNPU_CHOOSE(scale_columns)
QNPU_CHOOSE(scale_columns_backward)
QNPU_CHOOSE(accumulate)
QNPU_CHOOSE(rms_norm)
QNPU_CHOOSE(rms_norm_backward)
QNPU_CHOOSE(rope)
QNPU_CHOOSE(silu_mul)
QNPU_CHOOSE(silu_mul_backward)
QNPU_CHOOSE(log_sums)
QNPU_CHOOSE(probabilities)
QNPU_CHOOSE(softmax_backward)
QNPU_CHOOSE(row_dots)
QNPU_CHOOSE(cross_entropy)
QNPU_CHOOSE(kl)
#undef QNPU_CHOOSE

// a [M, K] b [K, N] with sums in fp32 (fp64 for fp64): exact for integers in bf16.
inline Tensor product(const Tensor& a, const Tensor& b) {
  return a.scalar_type() == torch::kBFloat16 ? matmul_bf16(a, b) : torch::matmul(a, b);
}

}  // namespace qnpu::ops
