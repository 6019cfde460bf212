// Sixteen products at once: x * table in 32 bits, then the even and the odd ones times the
// multiplier in 64. The odd ones are shifted to the upper halves only, where they have to be.
#include <immintrin.h>

#include "kernels/elementwise/paths.h"

namespace qnpu {
namespace {

struct Multiplier {
  __m512i multiplier, half;
  __m128i even_shift, odd_shift;
};

__m256i products(__m256i x, __m512i factors, const Multiplier& law) {
  const __m512i p = _mm512_mullo_epi32(_mm512_cvtepi16_epi32(x), factors);
  const __m512i even = _mm512_mul_epi32(p, law.multiplier);
  const __m512i odd = _mm512_mul_epi32(_mm512_srli_epi64(p, 32), law.multiplier);
  const __m512i lower = _mm512_sra_epi64(_mm512_add_epi64(even, law.half), law.even_shift);
  const __m512i upper = _mm512_sra_epi64(_mm512_add_epi64(odd, law.half), law.odd_shift);
  return _mm512_cvtsepi32_epi16(_mm512_mask_mov_epi32(lower, 0xaaaa, upper));
}

}  // namespace

void rope_rows_avx512vnni(const int16_t* x, const int16_t* table, int half, int rows, MulLaw law,
                          int16_t* y) {
  const Multiplier by = {_mm512_set1_epi64(law.multiplier),
                         _mm512_set1_epi64(int64_t{1} << (law.shift - 1)),
                         _mm_cvtsi32_si128(law.shift), _mm_cvtsi32_si128(law.shift - 32)};
  for (int i = 0; i < half; i += 16) {
    const auto mask = static_cast<__mmask16>(half - i >= 16 ? 0xffff : (1 << (half - i)) - 1);
    const __m512i factors = _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(mask, table + i));
    for (int64_t at = i; at < int64_t{rows} * half; at += half) {
      const __m256i row = _mm256_maskz_loadu_epi16(mask, x + at);
      _mm256_mask_storeu_epi16(y + at, mask, products(row, factors, by));
    }
  }
}

}  // namespace qnpu
