// From accumulators to outputs, a block of columns at a time: the end of linears and of both
// attention products. The law is requantize8 / requantize16 of base/law.h, saturated.
//
// 32 bits suffice. With cut = acc >> s (or << -s) and t = 2 * cut + 1, the 8-bit result is
// (t * mantissa + 2^15) >> 16, mantissa in [2^11, 2^12). For |cut| >= 2^13 it is at least
// (2^14 - 1) * 2^11 / 2^16 > 511 in magnitude, saturated whatever the rest is; so cut may be
// clamped to +-2^13 without a change, and t * mantissa stays below 2^27. A left shift by l is kept
// from overflowing by clamping to +-(2^13 >> l) before it. 16 bits: (u * mantissa + 2^29) >> 30
// with mantissa in [2^21, 2^22): the clamp is +-2^24, the result there is beyond +-65535, and u *
// mantissa < 2^48.
#pragma once

#include <cstdint>

#include "base/law.h"
#include "kernels/isa.h"

namespace qnpu {

inline constexpr int kRequantCols = 32;

// What a block of at most kRequantCols columns needs, in the form above.
struct RequantBlock {
  alignas(64) int32_t offset[kRequantCols] = {};  // added to the accumulator first
  alignas(64) int32_t right[kRequantCols] = {};   // shift of the accumulator, right ...
  alignas(64) int32_t left[kRequantCols] = {};    // ... or left; one of the two is 0
  alignas(64) int32_t limit[kRequantCols] = {};
  alignas(64) int32_t mantissa[kRequantCols] = {};
};

// One column's law. The 16-bit form starts from acc >> 8, hence shift - 8.
inline void set_requant8(RequantBlock& block, int j, Requant law, int32_t offset) {
  const int32_t left = std::max(-law.shift, 0);
  block.offset[j] = offset;
  block.right[j] = std::max(law.shift, 0);
  block.left[j] = left;
  block.limit[j] = (1 << 13) >> left;
  block.mantissa[j] = law.mantissa;
}
inline void set_requant16(RequantBlock& block, int j, Requant law, int32_t offset) {
  const int32_t shift = law.shift - 8;
  const int32_t left = std::max(-shift, 0);
  block.offset[j] = offset;
  block.right[j] = std::max(shift, 0);
  block.left[j] = left;
  block.limit[j] = (1 << 24) >> left;
  block.mantissa[j] = law.mantissa;
}

// The laws of n columns of a linear: offset = bias - 128 * row_sum, wrapping. `bias` may be null.
struct ColumnLaws {
  const int32_t* mantissa = nullptr;
  const int32_t* shift = nullptr;
  const int32_t* row_sum = nullptr;
  const int32_t* bias = nullptr;
};
void set_requant8(RequantBlock& block, int n, const ColumnLaws& laws);
void set_requant16(RequantBlock& block, int n, const ColumnLaws& laws);

// y[j] of one row: accumulator acc[j] + offset[j].
void requantize_row_s8(const int32_t* acc, int n, const RequantBlock& block, int8_t* y, Isa isa);
// Accumulator 256 * high[j] + low[j] + 256 * offset[j].
void requantize_row_s16(const int32_t* high, const int32_t* low, int n, const RequantBlock& block,
                        int16_t* y, Isa isa);

}  // namespace qnpu
