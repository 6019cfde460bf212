// Tables of 256 bytes as 128 words of two bytes in four registers: a permutation finds the word of
// the 32 numbers that lie in the lower bytes of a register's words, another that of the upper ones,
// and the number's last bit says which of the word's bytes it is.
#include <immintrin.h>

#include "kernels/elementwise/paths.h"

namespace qnpu {
namespace {

struct Table {
  __m512i words[4];
};

Table pack(const int16_t* table) {
  alignas(64) int8_t bytes[256];
  for (int i = 0; i < 256; ++i) bytes[i] = static_cast<int8_t>(table[i]);
  Table t;
  for (int i = 0; i < 4; ++i) t.words[i] = _mm512_load_si512(bytes + 64 * i);
  return t;
}

// In each lane of 16 bits, word `i` % 128.
__m512i find(const Table& t, __m512i i) {
  const __mmask32 upper = _mm512_test_epi16_mask(i, _mm512_set1_epi16(64));
  const __m512i left = _mm512_permutex2var_epi16(t.words[0], i, t.words[1]);
  const __m512i right = _mm512_permutex2var_epi16(t.words[2], i, t.words[3]);
  return _mm512_mask_mov_epi16(left, upper, right);
}

__m512i look_up(const Table& t, __m512i x) {
  x = _mm512_xor_si512(x, _mm512_set1_epi8(-128));  // x + 128, unsigned
  const __mmask32 lower_odd = _mm512_test_epi16_mask(x, _mm512_set1_epi16(1));
  const __mmask32 upper_odd = _mm512_test_epi16_mask(x, _mm512_set1_epi16(256));
  const __m512i lower = find(t, _mm512_srli_epi16(x, 1)), upper = find(t, _mm512_srli_epi16(x, 9));
  const __m512i low = _mm512_mask_srli_epi16(lower, lower_odd, lower, 8);
  const __m512i high = _mm512_mask_slli_epi16(upper, static_cast<__mmask32>(~upper_odd), upper, 8);
  return _mm512_mask_mov_epi8(low, 0xaaaaaaaaaaaaaaaa, high);
}

}  // namespace

void table_s8_avx512vnni(const int8_t* x, const int16_t* table, int64_t count, int8_t* y) {
  const Table t = pack(table);
  int64_t i = 0;
  for (; i + 64 <= count; i += 64) {
    _mm512_storeu_si512(y + i, look_up(t, _mm512_loadu_si512(x + i)));
  }
  if (i == count) return;
  const __mmask64 rest = (__mmask64{1} << (count - i)) - 1;
  _mm512_mask_storeu_epi8(y + i, rest, look_up(t, _mm512_maskz_loadu_epi8(rest, x + i)));
}

}  // namespace qnpu
