// The matrix product that calibration and GPTQ spend their time in: operands rounded to bf16, sums
// and results in fp32. Integer codes up to 256 are exact in bf16, so products of codes are exact.
#pragma once

#include "quant/tensor.h"

namespace qnpu {

// a [M, K] times b [K, N] -> [M, N] fp32, for fp32 or bf16 tensors of any strides; not
// differentiable. Where the CPU has no bf16 products (oneDNN, AVX-512 BF16 or AMX), and on other
// devices, it is the fp32 product of the tensors as they are.
torch::Tensor matmul_bf16(const torch::Tensor& a, const torch::Tensor& b);

// Small models have nothing to gain from it and stay exact.
inline bool gains_from_bf16(int hidden_size) { return hidden_size >= 256; }

}  // namespace qnpu
