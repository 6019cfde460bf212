// The instruction sets behind elementwise.h.
#pragma once

#include <cstdint>

#include "base/law.h"

namespace qnpu {

void table_s8_avx512vnni(const int8_t* x, const int16_t* table, int64_t count, int8_t* y);

// x [rows, half], each row times the table [half]. The law's shift is 34 (make_mul16), which leaves
// 27 bits and has to be 32 at least.
void rope_rows_avx512vnni(const int16_t* x, const int16_t* table, int half, int rows, MulLaw law,
                          int16_t* y);

}  // namespace qnpu
