// Tiles of 1 x 16, 2 x 8, 3 x 4 or 4 x 4 dot products, each in one register of 16 partial sums
// along K (vpdpbusd adds four u8 * s8 products to each, wrapping, never saturating). At the end
// sixteen registers are summed into one, lane i = sum of register i.
//
// 4 bits: one load holds 64 even weights in the low nibbles and 64 odd ones in the high nibbles.
// Moved to the upper half of a byte, a nibble is 16 times its signed value: no sign extension is
// needed, and the sum is divided by 16 at the end. |16 * w| <= 128, so the bound for 8 bits holds.
#include <immintrin.h>

#include <algorithm>

#include "kernels/matmul/paths.h"

namespace qnpu {
namespace {

__m512i pair32(__m512i a, __m512i b) {
  return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}
__m512i pair64(__m512i a, __m512i b) {
  return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}
// In each 128-bit lane the sums of that lane of v[0..3].
__m512i lane_sums(const __m512i* v) { return pair64(pair32(v[0], v[1]), pair32(v[2], v[3])); }

__m512i sums16(const __m512i* v) {
  const __m512i a = lane_sums(v), b = lane_sums(v + 4), c = lane_sums(v + 8), d = lane_sums(v + 12);
  const __m512i ab =
      _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x44), _mm512_shuffle_i32x4(a, b, 0xee));
  const __m512i cd =
      _mm512_add_epi32(_mm512_shuffle_i32x4(c, d, 0x44), _mm512_shuffle_i32x4(c, d, 0xee));
  return _mm512_add_epi32(_mm512_shuffle_i32x4(ab, cd, 0x88), _mm512_shuffle_i32x4(ab, cd, 0xdd));
}

template <int kRows>
constexpr int kCols = kRows == 1   ? 16
                      : kRows == 2 ? 8
                                   : 4;

// One 64-byte load of every row of B against the matching block of A.
template <int kRows, int kBits>
[[gnu::always_inline]] inline void step(const uint8_t* a, int64_t lda, const uint8_t* const* b,
                                        int64_t offset, __mmask64 mask, __m512i* sum) {
  const __m512i high = _mm512_set1_epi8(static_cast<char>(0xf0));
  __m512i lhs[kRows], odd[kRows];
  for (int i = 0; i < kRows; ++i) {
    lhs[i] = _mm512_loadu_si512(a + i * lda);
    if constexpr (kBits == 4) odd[i] = _mm512_loadu_si512(a + i * lda + 64);
  }
#pragma GCC unroll 16
  for (int j = 0; j < kCols<kRows>; ++j) {
    const __m512i w = _mm512_maskz_loadu_epi8(mask, b[j] + offset);
    const __m512i even = kBits == 4 ? _mm512_and_si512(_mm512_slli_epi16(w, 4), high) : w;
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      __m512i& s = sum[i * kCols<kRows> + j];
      s = _mm512_dpbusd_epi32(s, lhs[i], even);
      if constexpr (kBits == 4) s = _mm512_dpbusd_epi32(s, odd[i], _mm512_and_si512(w, high));
    }
  }
}

template <int kRows, int kBits>
void tile(const MatmulArgs& x, int m, int n) {
  const uint8_t* a = x.a + m * x.lda;
  const uint8_t* b[kCols<kRows>];
  for (int j = 0; j < kCols<kRows>; ++j) b[j] = x.b + std::min(n + j, x.n - 1) * x.ldb;
  __m512i sum[16];
  for (auto& s : sum) s = _mm512_setzero_si512();
  const int64_t bytes = kBits == 4 ? (x.k + 1) / 2 : x.k;
  int64_t k = 0;
  for (; k + 64 <= bytes; k += 64) {
    step<kRows, kBits>(a + k * (8 / kBits), x.lda, b, k, ~__mmask64{0}, sum);
  }
  if (k < bytes) {
    const __mmask64 mask = (__mmask64{1} << (bytes - k)) - 1;
    step<kRows, kBits>(a + k * (8 / kBits), x.lda, b, k, mask, sum);
  }
  __m512i c = sums16(sum);
  if constexpr (kBits == 4) c = _mm512_srai_epi32(c, 4);
  alignas(64) int32_t out[16];
  _mm512_store_si512(out, c);
  const int cols = std::min(kCols<kRows>, x.n - n);
  for (int i = 0; i < kRows; ++i) {
    std::copy_n(out + i * kCols<kRows>, cols, x.c + (m + i) * x.ldc + n);
  }
}

template <int kBits>
void matmul(const MatmulArgs& x) {
  const auto row_of_tiles = [&]<int kRows>(int m) {
    for (int n = 0; n < x.n; n += kCols<kRows>) tile<kRows, kBits>(x, m, n);
  };
  int m = 0;
  for (; m + 4 <= x.m; m += 4) row_of_tiles.template operator()<4>(m);
  if (x.m - m == 3) row_of_tiles.template operator()<3>(m);
  if (x.m - m == 2) row_of_tiles.template operator()<2>(m);
  if (x.m - m == 1) row_of_tiles.template operator()<1>(m);
}

}  // namespace

void matmul_u8s8_s32_avx512vnni(const MatmulArgs& x) {
  if (x.m >= kMinColumnsRows) return matmul_columns_u8s8_s32_avx512vnni(x);
  x.b_bits == 4 ? matmul<4>(x) : matmul<8>(x);
}

}  // namespace qnpu
