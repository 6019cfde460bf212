// How the attention kernels use their scratch, and how they cut their work.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/attention/attention.h"
#include "kernels/matmul/matmul.h"

namespace qnpu {

inline constexpr int kRowBlock = 64;  // query rows of a block of accumulators

// Two planes of unsigned bytes, [H * T, stride] each, 64-byte aligned.
struct Planes {
  uint8_t* high;
  uint8_t* low;
  int64_t stride;
};

inline uint8_t* align64(void* p) {
  return reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(p) + 63) / 64 * 64);
}

inline Planes planes(void* scratch, const AttentionShape& shape, int k) {
  const int64_t stride = padded_k(k, 8);
  uint8_t* high = align64(scratch);
  return {high, high + int64_t{shape.heads} * shape.tokens * stride, stride};
}

}  // namespace qnpu
