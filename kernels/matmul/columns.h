// Thirty-two rows of B as columns: group g holds, for each of 32 outputs, the four bytes of B at
// K = 4 * g .. 4 * g + 3, sixteen outputs to a register. That is how vpdpbusd and the tiles of AMX
// want their right operand.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/matmul/matmul.h"

namespace qnpu {

inline constexpr int kColumns = 32;

template <int kPart>  // of K
struct Columns {
  alignas(64) uint8_t group[kPart / 4][2][64];
};

// The part of K that is in the columns.
struct ColumnsPart {
  int64_t k0 = 0;
  int64_t size = 0;
  bool first = false, last = false;
};

template <int kPart>
ColumnsPart columns_part(int k, int64_t k0) {
  return {k0, std::min<int64_t>(kPart, k - k0), k0 == 0, k0 + kPart >= k};
}

}  // namespace qnpu
