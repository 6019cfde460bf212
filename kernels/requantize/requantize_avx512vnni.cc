#include <immintrin.h>

#include "kernels/requantize/loops.h"
#include "kernels/requantize/paths.h"

namespace qnpu {
namespace {

// Sixteen columns of result16 (loops.h), from column j on. Left to the compiler, the products are
// made of numbers of 64 bits, three times as many operations.
__m512i results16(__m512i high, __m512i low, const RequantBlock& p, int j) {
  const __m512i limit = _mm512_load_si512(p.limit + j);
  const __m512i mantissa = _mm512_load_si512(p.mantissa + j);
  __m512i x = _mm512_add_epi32(high, _mm512_load_si512(p.offset + j));
  x = _mm512_add_epi32(x, _mm512_srai_epi32(low, 8));
  x = _mm512_srav_epi32(x, _mm512_load_si512(p.right + j));
  x = _mm512_min_epi32(x, limit);
  x = _mm512_max_epi32(x, _mm512_sub_epi32(_mm512_setzero_si512(), limit));
  x = _mm512_slli_epi32(_mm512_sllv_epi32(x, _mm512_load_si512(p.left + j)), 1);
  x = _mm512_or_si512(x, _mm512_set1_epi32(1));
  const __m512i half = _mm512_set1_epi64(1 << 29);
  const __m512i even = _mm512_add_epi64(_mm512_mul_epi32(x, mantissa), half);
  const __m512i odd = _mm512_add_epi64(
      _mm512_mul_epi32(_mm512_srli_epi64(x, 32), _mm512_srli_epi64(mantissa, 32)), half);
  // Bits 30..61 of each, the odd ones in the upper halves.
  return _mm512_mask_mov_epi32(_mm512_srli_epi64(even, 30), 0xaaaa, _mm512_slli_epi64(odd, 2));
}

}  // namespace

void requantize_row_s8_avx512vnni(const int32_t* acc, int n, const RequantBlock& block, int8_t* y) {
  row8(acc, n, block, y);
}

void requantize_row_s16_avx512vnni(const int32_t* high, const int32_t* low, int n,
                                   const RequantBlock& block, int16_t* y) {
  const uint32_t columns = n >= 32 ? ~uint32_t{0} : (uint32_t{1} << n) - 1;
  for (int j = 0; j < n; j += 16) {
    const auto mask = static_cast<__mmask16>(columns >> j);
    const __m512i x = results16(_mm512_maskz_loadu_epi32(mask, high + j),
                                _mm512_maskz_loadu_epi32(mask, low + j), block, j);
    _mm256_mask_storeu_epi16(y + j, mask, _mm512_cvtsepi32_epi16(x));
  }
}

}  // namespace qnpu
