// Linear layers: x [M, K] (s8 or s16) times weight [N, K] (s4 or s8, per output channel) plus bias,
// requantized to y [M, N] of x's width (docs/numerics.md, "Linear").
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/isa.h"

namespace qnpu {

// The weights of one linear as the artifact holds them.
struct LinearWeights {
  int n = 0, k = 0;
  int bits = 8;                       // of the weight: 8 or 4 (packed, low nibble first, K even)
  const uint8_t* weight = nullptr;    // [N, K * bits / 8]
  const int32_t* row_sum = nullptr;   // [N] sum over k of the weight's integers
  const int32_t* bias = nullptr;      // [N] or null. 8-bit: scale x_scale * weight_scale[n];
                                      // 16-bit: that bias / 256, truncated (law.h bias16)
  const int32_t* mantissa = nullptr;  // [N] Requant of each channel
  const int32_t* shift = nullptr;     // [N]
  const uint8_t* panels = nullptr;    // the same weight as kernels/matmul/panels.h lays it out, or
                                      // null; instruction sets without a path for it do not look
};

// Bytes of scratch that linear_s8 / linear_s16 need for at most m rows.
size_t linear_scratch_bytes(int m, int k);

// x and y are symmetric (zero point 0 in signed form); results saturate.
void linear_s8(const int8_t* x, int m, const LinearWeights& w, int8_t* y, void* scratch, Isa isa);
void linear_s16(const int16_t* x, int m, const LinearWeights& w, int16_t* y, void* scratch,
                Isa isa);

}  // namespace qnpu
