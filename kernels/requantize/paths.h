// The instruction sets behind requantize.h.
#pragma once

#include "kernels/requantize/requantize.h"

namespace qnpu {

void requantize_row_s8_avx2(const int32_t* acc, int n, const RequantBlock& block, int8_t* y);
void requantize_row_s8_avx512vnni(const int32_t* acc, int n, const RequantBlock& block, int8_t* y);
void requantize_row_s16_avx2(const int32_t* high, const int32_t* low, int n,
                             const RequantBlock& block, int16_t* y);
void requantize_row_s16_avx512vnni(const int32_t* high, const int32_t* low, int n,
                                   const RequantBlock& block, int16_t* y);

}  // namespace qnpu
