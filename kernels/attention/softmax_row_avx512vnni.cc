// A row of attention between its scores and its probabilities' bytes, 32 scores at a time. The two
// tables of the exponential are looked up by permutations of registers: a gather takes several
// times as long. Of the table of high parts only what is not cut to zero is looked at.
#include <immintrin.h>

#include <algorithm>

#include "kernels/attention/paths.h"

namespace qnpu {
namespace {

// Whether (score * ma + constant) >> shift + zero point fits in 32 bits.
bool narrow(AddLaw law) { return law.ma >= 0 && law.ma < 1 << 15 && law.shift <= 16; }

__m512i load16(const int16_t* x, __mmask16 mask) {
  return _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(mask, x));
}
__mmask16 mask_of(int left) {
  return left >= 16 ? static_cast<__mmask16>(~0) : static_cast<__mmask16>((1 << left) - 1);
}

// The masked sum in place; returns the row's maximum.
int mask_and_max(int16_t* x, int n, AddLaw law, int32_t zero_point) {
  const __m512i ma = _mm512_set1_epi32(law.ma);
  const __m512i half = _mm512_set1_epi32((1 << (law.shift - 1)) + (law.ma & law.mb & 1));
  const __m128i shift = _mm_cvtsi32_si128(law.shift);
  const __m512i zero = _mm512_set1_epi32(zero_point);
  const __m512i low = _mm512_set1_epi32(-32768), top = _mm512_set1_epi32(32767);
  __m512i max = low;
  for (int c = 0; c < n; c += 16) {
    const __mmask16 mask = mask_of(n - c);
    const __m512i product = _mm512_mullo_epi32(load16(x + c, mask), ma);
    __m512i y = _mm512_sra_epi32(_mm512_add_epi32(product, half), shift);
    y = _mm512_min_epi32(_mm512_max_epi32(_mm512_add_epi32(y, zero), low), top);
    max = _mm512_mask_max_epi32(max, mask, max, y);
    _mm256_mask_storeu_epi16(x + c, mask, _mm512_cvtepi32_epi16(y));
  }
  return _mm512_reduce_max_epi32(max);
}

// table[index] for 16 indices below 32 * pairs.
__m512i look_up(const uint32_t* table, int pairs, __m512i index) {
  __m512i result = _mm512_setzero_si512();
  const __m512i pair = _mm512_srli_epi32(index, 5);
  for (int p = 0; p < pairs; ++p) {
    const __m512i values = _mm512_permutex2var_epi32(_mm512_loadu_si512(table + 32 * p), index,
                                                     _mm512_loadu_si512(table + 32 * p + 16));
    result =
        _mm512_mask_mov_epi32(result, _mm512_cmpeq_epi32_mask(pair, _mm512_set1_epi32(p)), values);
  }
  return result;
}

// (a * b) >> 30 of 16 lanes, below 2^32.
__m512i product_30(__m512i a, __m512i b) {
  const __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(a, b), 30);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
  return _mm512_mask_mov_epi32(even, 0xaaaa, _mm512_slli_epi64(odd, 2));
}

// Pairs of registers that hold the high parts above zero.
int pairs_above_zero(const uint32_t* high) {
  int count = 256;
  // high * low >> 30 is zero where high is below 2^15: low is at most 2^15.
  while (count > 1 && high[count - 1] < 1 << 15) --count;
  return (count + 31) / 32;
}

uint32_t exponentials(const int16_t* x, int n, int max, const AttentionLaw& law, uint16_t* e) {
  const __m512i top = _mm512_set1_epi32(max), one = _mm512_set1_epi32(kExpOfZero);
  const __m512i byte = _mm512_set1_epi32(255);
  const int pairs = pairs_above_zero(law.exp_high);
  const __m512i beyond = _mm512_set1_epi32(32 * 256 * pairs);
  __m512i sum = _mm512_setzero_si512();
  for (int c = 0; c < n; c += 16) {
    const __mmask16 mask = mask_of(n - c);
    const __m512i d = _mm512_sub_epi32(top, load16(x + c, mask));
    const __mmask16 some = _mm512_mask_cmplt_epi32_mask(mask, d, beyond);
    __m512i value = _mm512_setzero_si512();
    if (some != 0) {
      const __m512i high = look_up(law.exp_high, pairs, _mm512_srli_epi32(d, 8));
      const __m512i low = look_up(law.exp_low, 8, _mm512_and_si512(d, byte));
      value = _mm512_maskz_min_epu32(some, product_30(high, low), one);
    }
    sum = _mm512_add_epi32(sum, value);
    _mm256_mask_storeu_epi16(e + c, mask, _mm512_cvtepi32_epi16(value));
  }
  return static_cast<uint32_t>(_mm512_reduce_add_epi32(sum));
}

void divide(const uint16_t* e, int n, SoftmaxReciprocal r, uint8_t* high, uint8_t* low) {
  const __m512i factor = _mm512_set1_epi32(static_cast<int>(r.factor));
  const __m128i shift = _mm_cvtsi32_si128(r.shift);
  for (int c = 0; c < n; c += 16) {
    const __mmask16 mask = mask_of(n - c);
    const __m512i value = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, e + c));
    const __m512i p = _mm512_srl_epi32(_mm512_mullo_epi32(value, factor), shift);
    _mm_mask_storeu_epi8(low + c, mask, _mm512_cvtepi32_epi8(p));
    _mm_mask_storeu_epi8(high + c, mask, _mm512_cvtepi32_epi8(_mm512_srli_epi32(p, 8)));
  }
}

}  // namespace

void softmax_row_avx512vnni(const SoftmaxRow& row, const AttentionLaw& law) {
  if (!narrow(law.mask)) return softmax_row(row, law);
  const int max = mask_and_max(row.scores, row.n, law.mask, law.mask_zero_point);
  const uint32_t sum = exponentials(row.scores, row.n, max, law, row.e);
  divide(row.e, row.n, softmax_reciprocal(sum), row.high, row.low);
}

}  // namespace qnpu
