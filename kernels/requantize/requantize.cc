#include "kernels/requantize/requantize.h"

#include "kernels/requantize/loops.h"
#include "kernels/requantize/paths.h"

namespace qnpu {

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
