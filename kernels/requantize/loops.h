// The loops of requantize.h, compiled once per instruction set: included by files of which each
// names its functions itself. Everything is plain integer C++ that the compiler vectorises.
#pragma once

#include <algorithm>

#include "kernels/requantize/requantize.h"

namespace qnpu {
namespace {

// Wraps: only the true sum is proved to fit.
inline int32_t add_wrapping(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}

inline int32_t odd_cut(int32_t acc, const RequantBlock& p, int j) {
  const int32_t cut = std::clamp(acc >> p.right[j], -p.limit[j], p.limit[j]) * (1 << p.left[j]);
  return 2 * cut + 1;
}

inline int8_t result8(int32_t acc, const RequantBlock& p, int j) {
  const int32_t t = odd_cut(add_wrapping(acc, p.offset[j]), p, j);
  return static_cast<int8_t>(std::clamp((t * p.mantissa[j] + (1 << 15)) >> 16, -128, 127));
}

inline int16_t result16(int32_t high, int32_t low, const RequantBlock& p, int j) {
  // (256 * high + low) >> 8 = high + (low >> 8), since `high` is an integer.
  const int32_t acc_256 = add_wrapping(add_wrapping(high, p.offset[j]), low >> 8);
  const int64_t product = int64_t{odd_cut(acc_256, p, j)} * p.mantissa[j] + (1 << 29);
  // |product| < 2^49: bits 30..61 hold the floor with its sign.
  const auto y = static_cast<int32_t>(static_cast<uint64_t>(product) >> 30);
  return static_cast<int16_t>(std::clamp(y, -32768, 32767));
}

inline void row8(const int32_t* __restrict acc, int n, const RequantBlock& p,
                 int8_t* __restrict y) {
  if (n == kRequantCols) {
    for (int j = 0; j < kRequantCols; ++j) y[j] = result8(acc[j], p, j);
  } else {
    for (int j = 0; j < n; ++j) y[j] = result8(acc[j], p, j);
  }
}

inline void row16(const int32_t* __restrict high, const int32_t* __restrict low, int n,
                  const RequantBlock& p, int16_t* __restrict y) {
  if (n == kRequantCols) {
    for (int j = 0; j < kRequantCols; ++j) y[j] = result16(high[j], low[j], p, j);
  } else {
    for (int j = 0; j < n; ++j) y[j] = result16(high[j], low[j], p, j);
  }
}

}  // namespace
}  // namespace qnpu
