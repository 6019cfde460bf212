// The operations of a decoder layer for libtorch's automatic differentiation; each is one pass
// forward and one backward (ops.h). linear_group.h has the linears, attention.h attention.
#pragma once

#include "quant/learn/grid.h"
#include "quant/tensor.h"

namespace qnpu {

// Rounded to the grid; the gradient passes where the grid did not clip.
torch::Tensor fake_quant(const torch::Tensor& x, const Grid& grid);

// y = gamma * x / sqrt(mean(x^2) + eps) for each of `heads` parts of a row.
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& gamma, int heads, double eps);

// x * cos + rotate_half(x) * sin per head; x [B * T, heads * hd], cos and sin [T, hd / 2].
torch::Tensor rope(const torch::Tensor& x, const torch::Tensor& cos, const torch::Tensor& sin,
                   int heads);

// fake_quant(silu(gate)) * up, in fp32.
torch::Tensor silu_mul(const torch::Tensor& gate, const torch::Tensor& up, const Grid& grid);

}  // namespace qnpu
