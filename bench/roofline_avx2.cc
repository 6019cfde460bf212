// AVX2 has no exact product of bytes: pairs of 16-bit numbers, as in matmul_u8s8_s32_avx2.cc.
#include <immintrin.h>

#include "bench/roofline.h"

namespace qnpu {

int64_t multiply_adds_avx2(int64_t count) {
  constexpr int kSums = 8, kEach = 16;
  __m256i sums[kSums] = {}, a = _mm256_set1_epi16(3), b = _mm256_set1_epi16(2);
  const int64_t rounds = count / (kSums * kEach) + 1;
  for (int64_t i = 0; i < rounds; ++i) {
    asm("" : "+x"(a), "+x"(b));  // a new product every time
#pragma GCC unroll 8
    for (__m256i& sum : sums) {
      __m256i product = _mm256_madd_epi16(a, b);
      asm("" : "+x"(product));
      sum = _mm256_add_epi32(sum, product);
    }
  }
  for (__m256i& sum : sums) benchmark::DoNotOptimize(sum);
  return rounds * kSums * kEach;
}

}  // namespace qnpu
