// A row of attention between its scores and its probabilities' bytes, 32 scores at a time, in lanes
// of 16 bits. The two tables of the exponential are looked up by permutations of registers: a
// gather takes several times as long.
#include <immintrin.h>

#include <algorithm>

#include "kernels/attention/paths.h"

namespace qnpu {
namespace {

// Whether score * ma + constant fits in 32 bits.
bool narrow(AddLaw law) { return law.ma >= 0 && law.ma < 1 << 15 && law.shift <= 16; }

__mmask32 mask_of(int left) { return left >= 32 ? ~__mmask32{0} : (__mmask32{1} << left) - 1; }

int reduce_max(__m512i x) {
  const __m512i left = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(x));
  const __m512i right = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(x, 1));
  return _mm512_reduce_max_epi32(_mm512_max_epi32(left, right));
}

// The masked sum in place; returns the row's maximum.
int mask_and_max(int16_t* x, int n, AddLaw law, int32_t zero_point) {
  const __m512i ma = _mm512_set1_epi32(law.ma);  // in the lower half of each lane
  const __m512i half = _mm512_set1_epi32((1 << (law.shift - 1)) + (law.ma & law.mb & 1));
  const __m128i shift = _mm_cvtsi32_si128(law.shift);
  const __m512i zero = _mm512_set1_epi32(zero_point);
  const auto sum = [&](__m512i pairs) {  // of a score and something that meets a zero of `ma`
    const __m512i product = _mm512_add_epi32(_mm512_madd_epi16(pairs, ma), half);
    return _mm512_add_epi32(_mm512_sra_epi32(product, shift), zero);
  };
  __m512i max = _mm512_set1_epi16(-32768);
  for (int c = 0; c < n; c += 32) {
    const __mmask32 mask = mask_of(n - c);
    const __m512i scores = _mm512_maskz_loadu_epi16(mask, x + c);
    const __m512i y = _mm512_packs_epi32(sum(_mm512_unpacklo_epi16(scores, scores)),
                                         sum(_mm512_unpackhi_epi16(scores, scores)));
    max = _mm512_mask_max_epi16(max, mask, max, y);
    _mm512_mask_storeu_epi16(x + c, mask, y);
  }
  return reduce_max(max);
}

// Number d % 64 of 64.
__m512i of_64(const uint16_t* table, __m512i d) {
  return _mm512_permutex2var_epi16(_mm512_load_si512(table), d, _mm512_load_si512(table + 32));
}

// Number d % 256.
__m512i of_256(const uint16_t* table, __m512i d) {
  const __mmask32 second = _mm512_test_epi16_mask(d, _mm512_set1_epi16(64));
  const __mmask32 upper = _mm512_test_epi16_mask(d, _mm512_set1_epi16(128));
  const __m512i left = _mm512_mask_mov_epi16(of_64(table, d), second, of_64(table + 64, d));
  const __m512i right = _mm512_mask_mov_epi16(of_64(table + 128, d), second, of_64(table + 192, d));
  return _mm512_mask_mov_epi16(left, upper, right);
}

// (2^16 * top + bottom) * low >> 30, at most 2^15: top * low in two halves, what bottom * low
// carries, and two bits of the upper half's place.
__m512i product_30(__m512i top, __m512i bottom, __m512i low) {
  const __m512i half = _mm512_mullo_epi16(top, low);
  const __m512i sum = _mm512_add_epi16(half, _mm512_mulhi_epu16(bottom, low));
  const __m512i upper = _mm512_mulhi_epu16(top, low);
  const __m512i carried =
      _mm512_mask_add_epi16(upper, _mm512_cmplt_epu16_mask(sum, half), upper, _mm512_set1_epi16(1));
  return _mm512_or_si512(_mm512_slli_epi16(carried, 2), _mm512_srli_epi16(sum, 14));
}

__m512i exponential(__m512i d, const ExpPieces& t) {
  const __m512i i = _mm512_srli_epi16(d, 8);
  __m512i top = of_64(t.top, i), bottom = of_64(t.bottom, i);
  for (int g = 1; g < t.groups; ++g) {
    const __mmask32 here = _mm512_cmpge_epu16_mask(i, _mm512_set1_epi16(64 * g));
    top = _mm512_mask_mov_epi16(top, here, of_64(t.top + 64 * g, i));
    bottom = _mm512_mask_mov_epi16(bottom, here, of_64(t.bottom + 64 * g, i));
  }
  const __mmask32 some = _mm512_cmplt_epu16_mask(i, _mm512_set1_epi16(64 * t.groups));
  const __m512i value = product_30(top, bottom, of_256(t.low, d));
  return _mm512_maskz_min_epu16(some, value, _mm512_set1_epi16(kExpOfZero));
}

uint32_t exponentials(const int16_t* x, int n, int max, const ExpPieces& tables, uint16_t* e) {
  const __m512i top = _mm512_set1_epi16(static_cast<int16_t>(max)), one = _mm512_set1_epi16(1);
  __m512i sum = _mm512_setzero_si512();
  for (int c = 0; c < n; c += 32) {
    const __mmask32 mask = mask_of(n - c);
    const __m512i d = _mm512_sub_epi16(top, _mm512_maskz_loadu_epi16(mask, x + c));
    const __m512i value = _mm512_maskz_mov_epi16(mask, exponential(d, tables));
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(value, one));
    _mm512_mask_storeu_epi16(e + c, mask, value);
  }
  return static_cast<uint32_t>(_mm512_reduce_add_epi32(sum));
}

// e * factor >> shift is one half of the product, or a piece of both.
void divide(const uint16_t* e, int n, SoftmaxReciprocal r, uint8_t* high, uint8_t* low) {
  const __m512i factor = _mm512_set1_epi16(static_cast<int16_t>(r.factor));
  const __m128i left = _mm_cvtsi32_si128(std::max(16 - r.shift, 0));
  const __m128i right = _mm_cvtsi32_si128(std::max(r.shift - 16, 0));
  const __m128i rest = _mm_cvtsi32_si128(std::min(r.shift, 16));  // 16: nothing is left
  for (int c = 0; c < n; c += 32) {
    const __mmask32 mask = mask_of(n - c);
    const __m512i value = _mm512_maskz_loadu_epi16(mask, e + c);
    const __m512i upper = _mm512_mulhi_epu16(value, factor);
    const __m512i lower = _mm512_srl_epi16(_mm512_mullo_epi16(value, factor), rest);
    const __m512i p =
        _mm512_or_si512(_mm512_srl_epi16(_mm512_sll_epi16(upper, left), right), lower);
    _mm256_mask_storeu_epi8(low + c, mask, _mm512_cvtepi16_epi8(p));
    _mm256_mask_storeu_epi8(high + c, mask, _mm512_cvtepi16_epi8(_mm512_srli_epi16(p, 8)));
  }
}

}  // namespace

void softmax_row_avx512vnni(const SoftmaxRow& row, const AttentionLaw& law,
                            const ExpPieces& tables) {
  if (!narrow(law.mask)) return softmax_row(row, law);
  const int max = mask_and_max(row.scores, row.n, law.mask, law.mask_zero_point);
  const uint32_t sum = exponentials(row.scores, row.n, max, tables, row.e);
  divide(row.e, row.n, softmax_reciprocal(sum), row.high, row.low);
}

}  // namespace qnpu
