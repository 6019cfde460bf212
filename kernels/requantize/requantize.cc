#include "kernels/requantize/requantize.h"

#include "base/vectorize.h"
#include "kernels/requantize/loops.h"
#include "kernels/requantize/paths.h"

namespace qnpu {
namespace {

// As set_requant8 and set_requant16 for one column, for all at once.
QNPU_VECTORIZE void set_columns(RequantBlock& block, int n, const ColumnLaws& laws, int drop,
                                int32_t top) {
  for (int j = 0; j < n; ++j) {
    const int32_t shift = laws.shift[j] - drop;
    const int32_t left = std::max(-shift, 0);
    block.offset[j] = static_cast<int32_t>(-128u * static_cast<uint32_t>(laws.row_sum[j]));
    block.right[j] = std::max(shift, 0);
    block.left[j] = left;
    block.limit[j] = top >> left;
    block.mantissa[j] = laws.mantissa[j];
  }
  if (laws.bias == nullptr) return;
  for (int j = 0; j < n; ++j) block.offset[j] = add_wrapping(block.offset[j], laws.bias[j]);
}

}  // namespace

void set_requant8(RequantBlock& block, int n, const ColumnLaws& laws) {
  set_columns(block, n, laws, 0, 1 << 13);
}
void set_requant16(RequantBlock& block, int n, const ColumnLaws& laws) {
  set_columns(block, n, laws, 8, 1 << 24);
}

void requantize_row_s8(const int32_t* acc, int n, const RequantBlock& block, int8_t* y, Isa isa) {
  switch (isa) {
    case Isa::kAmxInt8:
    case Isa::kAvx512Vnni:
      return requantize_row_s8_avx512vnni(acc, n, block, y);
    case Isa::kAvx2:
      return requantize_row_s8_avx2(acc, n, block, y);
    default:
      return row8(acc, n, block, y);
  }
}

void requantize_row_s16(const int32_t* high, const int32_t* low, int n, const RequantBlock& block,
                        int16_t* y, Isa isa) {
  switch (isa) {
    case Isa::kAmxInt8:
    case Isa::kAvx512Vnni:
      return requantize_row_s16_avx512vnni(high, low, n, block, y);
    case Isa::kAvx2:
      return requantize_row_s16_avx2(high, low, n, block, y);
    default:
      return row16(high, low, n, block, y);
  }
}

}  // namespace qnpu
