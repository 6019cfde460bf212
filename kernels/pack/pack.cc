#include "kernels/pack/pack.h"

#include <algorithm>
#include <cstring>

#include "base/vectorize.h"
#include "kernels/matmul/matmul.h"

namespace qnpu {
namespace {

// Element k goes to a_index(k); `byte(k)` is its value. Whole blocks first, with constant bounds.
template <typename Byte>
[[gnu::always_inline]] inline void pack(int k, int b_bits, uint8_t* __restrict to, Byte byte) {
  const int whole = b_bits == 4 ? k / 128 * 128 : k;
  if (b_bits == 4) {
    for (int block = 0; block < whole; block += 128) {
      for (int i = 0; i < 64; ++i) to[block + i] = byte(block + 2 * i);
      for (int i = 0; i < 64; ++i) to[block + 64 + i] = byte(block + 2 * i + 1);
    }
  } else {
    for (int i = 0; i < whole; ++i) to[i] = byte(i);
  }
  std::fill(to + whole, to + padded_k(k, b_bits), uint8_t{0});
  for (int i = whole; i < k; ++i) to[a_index(i, b_bits)] = byte(i);
}

}  // namespace

QNPU_VECTORIZE void pack_row_s8(const int8_t* x, int k, int b_bits, uint8_t* packed) {
  pack(k, b_bits, packed, [x](int i) { return static_cast<uint8_t>(x[i] + 128); });
}

QNPU_VECTORIZE void pack_row_s16(const int16_t* x, int k, int b_bits, uint8_t* high, uint8_t* low) {
  pack(k, b_bits, high, [x](int i) { return static_cast<uint8_t>((x[i] >> 8) + 128); });
  pack(k, b_bits, low, [x](int i) { return static_cast<uint8_t>(x[i] & 255); });
}

QNPU_VECTORIZE void pack_row_u16(const uint16_t* x, int k, int b_bits, uint8_t* high,
                                 uint8_t* low) {
  pack(k, b_bits, high, [x](int i) { return static_cast<uint8_t>(x[i] >> 8); });
  pack(k, b_bits, low, [x](int i) { return static_cast<uint8_t>(x[i] & 255); });
}

// Of every eight bytes the even ones first. As arithmetic on 64 bits, which compilers vectorise.
QNPU_VECTORIZE void to_panel_order(uint8_t* row, int64_t bytes) {
  const auto gather = [](uint64_t v) {
    v &= 0x00ff00ff00ff00ff;
    v = (v | v >> 8) & 0x0000ffff0000ffff;
    return (v | v >> 16) & 0x00000000ffffffff;
  };
  for (int64_t i = 0; i < bytes; i += 8) {
    uint64_t v = 0;
    std::memcpy(&v, row + i, 8);
    v = gather(v) | gather(v >> 8) << 32;
    std::memcpy(row + i, &v, 8);
  }
}

}  // namespace qnpu
