// Rows of activations as the left operand of the matmul: unsigned bytes, padded with zeros to whole
// blocks, in the order of matmul.h's a_index.
#pragma once

#include <cstdint>

namespace qnpu {

// x + 128.
void pack_row_s8(const int8_t* x, int k, int b_bits, uint8_t* packed);
// x = 256 * (high - 128) + low.
void pack_row_s16(const int16_t* x, int k, int b_bits, uint8_t* high, uint8_t* low);
// x = 256 * high + low.
void pack_row_u16(const uint16_t* x, int k, int b_bits, uint8_t* high, uint8_t* low);

// From the order of 8-bit operands, as packed with b_bits = 8, to that of panels of 4-bit weights
// (kernels/matmul/panels.h); `bytes` is a multiple of 8.
void to_panel_order(uint8_t* row, int64_t bytes);

}  // namespace qnpu
