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

#include "kernels/matmul/columns_avx512vnni.h"
#include "kernels/matmul/paths.h"

namespace qnpu {
namespace {

constexpr int kTileRows = 8;
constexpr int kPart = 512;  // of K: 16 kB of transposed bytes

template <int kRows, int kBits>
void tile(const MatmulArgs& x, int m, int n, const ColumnsPart& part,
          const Columns<kPart>& columns) {
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
  // Whole blocks of 4-bit elements: even and odd ones lie apart.
  const int64_t groups = kBits == 4 ? padded_k(part.size, 4) / 4 : (part.size + 3) / 4;
  for (int64_t g = 0; g < groups; ++g) {
    const __m512i left_rhs = _mm512_load_si512(columns.group[g][0]);
    const __m512i right_rhs = _mm512_load_si512(columns.group[g][1]);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      int32_t four = 0;
      std::memcpy(&four, a + i * x.lda + 4 * g, 4);
      const __m512i lhs = _mm512_set1_epi32(four);
      sum[i][0] = _mm512_dpbusd_epi32(sum[i][0], lhs, left_rhs);
      sum[i][1] = _mm512_dpbusd_epi32(sum[i][1], lhs, right_rhs);
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
  Columns<kPart> columns;
  for (int n = 0; n < x.n; n += kColumns) {
    for (int64_t k0 = 0; k0 < x.k; k0 += kPart) {
      const ColumnsPart part = columns_part<kPart>(x.k, k0);
      load_columns<kPart, kBits>(x, k0, n, columns);
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
