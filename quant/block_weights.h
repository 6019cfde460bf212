// 4-bit weights in blocks along the inputs (LPBQ):
//
//   w = scale[n] * m[n, b] * q[n, k]     m an integer in 1..16 of each block, q in [-7, 7]
//
// The NPU multiplies m * q out on the chip and computes an 8-bit linear with |m * q| <= 112
// (docs/numerics.md), so that product is what is stored and what the runtime multiplies with.
#pragma once

#include <span>

#include "quant/weights.h"

namespace qnpu {

constexpr int kLargestBlockMultiplier = 16;

// The scale that each block would like: that of weight_scales, taken of blocks instead of rows.
// `block` [n, k / spec.block_size].
void block_scales(WeightRows rows, const QuantSpec& spec, bool rotated, float* block);

// A row's scale [n]: its largest block's / 16. `block` [n, blocks of a row].
void channel_scales(std::span<const float> block, std::span<float> scale);

// Products q [n, k] of m = clamp(round(block / scale), 1, 16) and clamp(round(w / (scale * m)),
// -7, 7). Positive `scale` [n] (rows of zeros included).
void round_block_weights(WeightRows rows, int block_size, const float* block, const float* scale,
                         int8_t* q);

}  // namespace qnpu
