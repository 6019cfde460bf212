#include <immintrin.h>

#include "bench/roofline.h"

namespace qnpu {

int64_t multiply_adds_avx512vnni(int64_t count) {
  constexpr int kSums = 16, kEach = 64;
  __m512i sums[kSums], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(2);
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  const int64_t rounds = count / (kSums * kEach) + 1;
  for (int64_t i = 0; i < rounds; ++i) {
    asm("" : "+v"(a), "+v"(b));  // not known to be the same in every round
#pragma GCC unroll 16
    for (__m512i& sum : sums) sum = _mm512_dpbusd_epi32(sum, a, b);
  }
  for (__m512i& sum : sums) benchmark::DoNotOptimize(sum);
  return rounds * kSums * kEach;
}

}  // namespace qnpu
