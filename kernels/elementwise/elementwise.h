// Operations on one number at a time: widths, residual sums, products, tables, RoPE.
#pragma once

#include <cstdint>

#include "base/law.h"
#include "kernels/isa.h"

namespace qnpu {

void widen_s8_s16(const int8_t* x, int64_t count, int16_t* y);
void narrow_s16_s8(const int16_t* x, int64_t count, int8_t* y);
void narrow_s16_s4(const int16_t* x, int64_t count, int8_t* y);  // a byte for each number

void add_s16(const int16_t* a, const int16_t* b, int64_t count, AddLaw law, int16_t* y);

// a's zero point is taken off first; b and y are symmetric.
void mul_s8(const int8_t* a, int32_t a_zero_point, const int8_t* b, int64_t count, MulLaw law,
            int8_t* y);
void mul_s16(const int16_t* a, int32_t a_zero_point, const int16_t* b, int64_t count, MulLaw law,
             int16_t* y);

// y = table[x - qmin]; 256 entries for s8 (values in s8's range), 65536 for s16.
void table_s8(const int8_t* x, const int16_t* table, int64_t count, int8_t* y, Isa isa);
void table_s16(const int16_t* x, const int16_t* table, int64_t count, int16_t* y);

// x [T, heads, hd]: [a, b] -> [-b, a] for the two halves of each head; -(-32768) saturates.
void rotate_half_s16(const int16_t* x, int tokens, int heads, int head_dim, int16_t* y);

// x [T, heads, hd] times table [P, hd / 2] at rows position + t, for both halves of each head.
void rope_mul_s16(const int16_t* x, const int16_t* table, int tokens, int position, int heads,
                  int head_dim, MulLaw law, int16_t* y, Isa isa);

// y[t] = table[token[t]], rows of `cols`.
void embedding_s16(const int32_t* tokens, int count, const int16_t* table, int cols, int16_t* y);

// x [rows, cols], gamma [cols]; each row normalised for itself.
void rmsnorm_s16(const int16_t* x, const int16_t* gamma, int rows, int cols, const RmsNormLaw& law,
                 int16_t* y);

}  // namespace qnpu
