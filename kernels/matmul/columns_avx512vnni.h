// Fills Columns by transposing registers. Only files that are compiled for AVX-512 include this,
// and each has its own copy (hence the unnamed namespace).
#pragma once

#include <immintrin.h>

#include <algorithm>

#include "kernels/matmul/columns.h"

namespace qnpu {
namespace {

// v[r] holds 16 numbers of row r; afterwards v[c] holds number c of the 16 rows.
inline void transpose16(__m512i* v) {
  __m512i u[16];
  for (int g = 0; g < 16; g += 4) {
    const __m512i a = _mm512_unpacklo_epi32(v[g], v[g + 1]);
    const __m512i b = _mm512_unpackhi_epi32(v[g], v[g + 1]);
    const __m512i c = _mm512_unpacklo_epi32(v[g + 2], v[g + 3]);
    const __m512i d = _mm512_unpackhi_epi32(v[g + 2], v[g + 3]);
    u[g] = _mm512_unpacklo_epi64(a, c);
    u[g + 1] = _mm512_unpackhi_epi64(a, c);
    u[g + 2] = _mm512_unpacklo_epi64(b, d);
    u[g + 3] = _mm512_unpackhi_epi64(b, d);
  }
  // Lane l of u[g + c] holds rows g .. g + 3 at number 4 * l + c.
  for (int c = 0; c < 4; ++c) {
    const __m512i low01 = _mm512_shuffle_i32x4(u[c], u[4 + c], 0x44);
    const __m512i low23 = _mm512_shuffle_i32x4(u[8 + c], u[12 + c], 0x44);
    const __m512i high01 = _mm512_shuffle_i32x4(u[c], u[4 + c], 0xee);
    const __m512i high23 = _mm512_shuffle_i32x4(u[8 + c], u[12 + c], 0xee);
    v[c] = _mm512_shuffle_i32x4(low01, low23, 0x88);
    v[4 + c] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
    v[8 + c] = _mm512_shuffle_i32x4(high01, high23, 0x88);
    v[12 + c] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
  }
}

// Sixteen rows' next 64 bytes as 16 groups of half `half` of the columns.
inline void store_groups(__m512i* v, uint8_t (*group)[2][64], int half) {
  transpose16(v);
  for (int g = 0; g < 16; ++g) _mm512_store_si512(group[g][half], v[g]);
}

// Rows [n, n + 16) of B; rows past the end repeat the last.
template <int kPart, int kBits>
void load_half(const MatmulArgs& x, int64_t k0, int n, int half, Columns<kPart>& columns) {
  const __m512i high = _mm512_set1_epi8(static_cast<char>(0xf0));
  const int64_t end = std::min<int64_t>(x.k, k0 + kPart) * kBits / 8;
  for (int64_t byte = k0 * kBits / 8; byte < end; byte += 64) {
    const __mmask64 mask = end - byte >= 64 ? ~__mmask64{0} : (__mmask64{1} << (end - byte)) - 1;
    __m512i v[16], even[16];
    for (int j = 0; j < 16; ++j) {
      v[j] = _mm512_maskz_loadu_epi8(mask, x.b + std::min(n + j, x.n - 1) * x.ldb + byte);
      if constexpr (kBits == 4) {
        even[j] = _mm512_and_si512(_mm512_slli_epi16(v[j], 4), high);
        v[j] = _mm512_and_si512(v[j], high);
      }
    }
    uint8_t(*group)[2][64] = columns.group + (byte * 8 / kBits - k0) / 4;
    if constexpr (kBits == 4) store_groups(even, group, half);
    store_groups(v, kBits == 4 ? group + 16 : group, half);
  }
}

// Elements [k0, k0 + kPart) of rows [n, n + 32) of B. 4 bits: nibbles are moved to the upper half
// of a byte, 16 times their value.
template <int kPart, int kBits>
void load_columns(const MatmulArgs& x, int64_t k0, int n, Columns<kPart>& columns) {
  load_half<kPart, kBits>(x, k0, n, 0, columns);
  load_half<kPart, kBits>(x, k0, n + 16, 1, columns);
}

}  // namespace
}  // namespace qnpu
