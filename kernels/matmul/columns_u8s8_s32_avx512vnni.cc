// For many rows of A: 32 rows of B are transposed into groups of four bytes, so that one register
// holds the same group of 16 rows; four bytes of A broadcast against it add to 16 results at once,
// and no register has to be summed at the end. Tiles of 8 x 32, K in parts that stay in the cache;
// from the second part on the sums go on from C.
//
// 4 bits: nibbles are moved to the upper half of a byte, 16 times their value, as in
// matmul_u8s8_s32_avx512vnni.cc; the last part divides by 16.
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/matmul/paths.h"

namespace qnpu {
namespace {

constexpr int kTileRows = 8;
constexpr int kPart = 512;  // of K: 16 kB of transposed bytes

struct Columns {
  alignas(64) __m512i group[kPart / 4][2];
};

// v[r] holds 16 numbers of row r; afterwards v[c] holds number c of the 16 rows.
void transpose16(__m512i* v) {
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
void store_groups(__m512i* v, Columns& columns, int first, int half) {
  transpose16(v);
  for (int g = 0; g < 16; ++g) columns.group[first + g][half] = v[g];
}

// Elements [k0, k0 + kPart) of rows [n, n + 16) of B; rows past the end repeat the last.
template <int kBits>
void load_columns(const MatmulArgs& x, int64_t k0, int n, int half, Columns& columns) {
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
    const int first = static_cast<int>(byte * 8 / kBits - k0) / 4;
    if constexpr (kBits == 4) store_groups(even, columns, first, half);
    store_groups(v, columns, kBits == 4 ? first + 16 : first, half);
  }
}

struct Part {
  int64_t k0;
  int groups;
  bool first, last;
};

template <int kRows, int kBits>
void tile(const MatmulArgs& x, int m, int n, Part part, const Columns& columns) {
  const auto mask = static_cast<__mmask32>((uint64_t{1} << std::min(32, x.n - n)) - 1);
  const auto left = static_cast<__mmask16>(mask), right = static_cast<__mmask16>(mask >> 16);
  int32_t* c = x.c + m * x.ldc + n;
  __m512i sum[kRows][2];
  for (int i = 0; i < kRows; ++i) {
    sum[i][0] = part.first ? _mm512_setzero_si512() : _mm512_maskz_loadu_epi32(left, c + i * x.ldc);
    sum[i][1] =
        part.first ? _mm512_setzero_si512() : _mm512_maskz_loadu_epi32(right, c + i * x.ldc + 16);
  }
  const uint8_t* a = x.a + m * x.lda + part.k0;
  for (int g = 0; g < part.groups; ++g) {
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      int32_t four = 0;
      std::memcpy(&four, a + i * x.lda + 4 * g, 4);
      const __m512i lhs = _mm512_set1_epi32(four);
      sum[i][0] = _mm512_dpbusd_epi32(sum[i][0], lhs, columns.group[g][0]);
      sum[i][1] = _mm512_dpbusd_epi32(sum[i][1], lhs, columns.group[g][1]);
    }
  }
  const int shift = kBits == 4 && part.last ? 4 : 0;
  for (int i = 0; i < kRows; ++i) {
    _mm512_mask_storeu_epi32(c + i * x.ldc, left, _mm512_srai_epi32(sum[i][0], shift));
    _mm512_mask_storeu_epi32(c + i * x.ldc + 16, right, _mm512_srai_epi32(sum[i][1], shift));
  }
}

template <int kBits>
void matmul(const MatmulArgs& x) {
  Columns columns;
  for (int n = 0; n < x.n; n += 32) {
    for (int64_t k0 = 0; k0 < x.k; k0 += kPart) {
      const int64_t k = std::min<int64_t>(kPart, x.k - k0);
      // Whole blocks of 4-bit elements: even and odd ones lie apart.
      const auto groups = static_cast<int>(kBits == 4 ? padded_k(k, 4) / 4 : (k + 3) / 4);
      const Part part = {k0, groups, k0 == 0, k0 + kPart >= x.k};
      load_columns<kBits>(x, k0, n, 0, columns);
      load_columns<kBits>(x, k0, n + 16, 1, columns);
      int m = 0;
      for (; m + kTileRows <= x.m; m += kTileRows) {
        tile<kTileRows, kBits>(x, m, n, part, columns);
      }
      for (; m < x.m; ++m) tile<1, kBits>(x, m, n, part, columns);
    }
  }
}

}  // namespace

void matmul_columns_u8s8_s32_avx512vnni(const MatmulArgs& x) {
  x.b_bits == 4 ? matmul<4>(x) : matmul<8>(x);
}

}  // namespace qnpu
