// Tiles of 2 x 4 dot products. Both operands are widened to 16 bits and multiplied by vpmaddwd:
// vpmaddubsw would be shorter, but its 16-bit pair sums saturate (255 * 127 * 2 > 32767).
//
// 4 bits: a nibble moved to the upper half of its byte is 16 times its signed value; the sum is
// divided by 16 at the end.
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/matmul/paths.h"

namespace qnpu {
namespace {

constexpr int kCols = 4;

__m128i load16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }

void add_products(const uint8_t* a, __m128i weights, __m256i& sum) {
  const __m256i product =
      _mm256_madd_epi16(_mm256_cvtepu8_epi16(load16(a)), _mm256_cvtepi8_epi16(weights));
  sum = _mm256_add_epi32(sum, product);
}

// Sixteen bytes of B, at `offset` bytes of its row, against their elements of A.
template <int kRows, int kBits>
void step(const uint8_t* a, int64_t lda, int64_t offset, __m128i w, __m256i (&sum)[2][kCols],
          int j) {
  const __m128i high = _mm_set1_epi8(static_cast<char>(0xf0));
  for (int i = 0; i < kRows; ++i) {
    const uint8_t* row = a + i * lda;
    if constexpr (kBits == 8) {
      add_products(row + offset, w, sum[i][j]);
    } else {
      const uint8_t* even = row + offset / 64 * 128 + offset % 64;
      add_products(even, _mm_and_si128(_mm_slli_epi16(w, 4), high), sum[i][j]);
      add_products(even + 64, _mm_and_si128(w, high), sum[i][j]);
    }
  }
}

__m128i sums4(const __m256i* v) {
  const __m256i s = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
  return _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
}

template <int kRows, int kBits>
void tile(const MatmulArgs& x, int m, int n) {
  const int64_t bytes = kBits == 4 ? (x.k + 1) / 2 : x.k;
  const int64_t whole = bytes / 16 * 16;
  const uint8_t* b[kCols];
  for (int j = 0; j < kCols; ++j) b[j] = x.b + std::min(n + j, x.n - 1) * x.ldb;
  const uint8_t* a = x.a + m * x.lda;
  __m256i sum[2][kCols] = {};
  for (int64_t k = 0; k < whole; k += 16) {
    for (int j = 0; j < kCols; ++j) step<kRows, kBits>(a, x.lda, k, load16(b[j] + k), sum, j);
  }
  for (int j = 0; j < kCols && whole < bytes; ++j) {
    uint8_t tail[16] = {};
    std::memcpy(tail, b[j] + whole, bytes - whole);
    step<kRows, kBits>(a, x.lda, whole, load16(tail), sum, j);
  }
  for (int i = 0; i < kRows; ++i) {
    alignas(16) int32_t out[kCols];
    const __m128i c = sums4(sum[i]);
    _mm_store_si128(reinterpret_cast<__m128i*>(out), kBits == 4 ? _mm_srai_epi32(c, 4) : c);
    std::copy_n(out, std::min(kCols, x.n - n), x.c + (m + i) * x.ldc + n);
  }
}

template <int kBits>
void matmul(const MatmulArgs& x) {
  int m = 0;
  for (; m + 2 <= x.m; m += 2) {
    for (int n = 0; n < x.n; n += kCols) tile<2, kBits>(x, m, n);
  }
  for (int n = 0; m < x.m && n < x.n; n += kCols) tile<1, kBits>(x, m, n);
}

}  // namespace

void matmul_u8s8_s32_avx2(const MatmulArgs& x) { x.b_bits == 4 ? matmul<4>(x) : matmul<8>(x); }

}  // namespace qnpu
