#include "kernels/requantize/loops.h"
#include "kernels/requantize/paths.h"

namespace qnpu {

void requantize_row_s8_avx512vnni(const int32_t* acc, int n, const RequantBlock& block, int8_t* y) {
  row8(acc, n, block, y);
}
void requantize_row_s16_avx512vnni(const int32_t* high, const int32_t* low, int n,
                                   const RequantBlock& block, int16_t* y) {
  row16(high, low, n, block, y);
}

}  // namespace qnpu
