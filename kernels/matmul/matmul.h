// The one integer product under everything: C[M, N] = sum over k of A[M, K] * B[N, K], exact in
// int32. Signed left operands reach it as unsigned with an offset, 16-bit ones as two planes; the
// callers take the offset back with row sums of B.
//
// B lies in memory as the artifact holds it. A is prepared by the caller: each row is padded with
// zeros to whole blocks, and for a 4-bit B each block of 128 holds its even elements first, then
// its odd ones, so that nibbles meet their partners without a shuffle.
//
// |C| <= K * 255 * 128 < 2^31 holds for K <= kMaxMatmulK.
#pragma once

#include <cstdint>

#include "kernels/isa.h"

namespace qnpu {

inline constexpr int kMaxMatmulK = 65536;

struct MatmulArgs {
  int m = 0, n = 0, k = 0;
  const uint8_t* a = nullptr;  // [M, lda], rows of padded_k(k, b_bits) bytes in a_index order
  int64_t lda = 0;
  const uint8_t* b = nullptr;  // s8: [N, ldb] bytes; s4: two per byte, low nibble first
  int64_t ldb = 0;             // in bytes
  int b_bits = 8;              // 8 or 4
  int32_t* c = nullptr;        // [M, ldc]
  int64_t ldc = 0;
};

inline int64_t padded_k(int64_t k, int b_bits) {
  const int64_t block = b_bits == 4 ? 128 : 64;
  return (k + block - 1) / block * block;
}

// Where element k of a row of A lies.
inline int64_t a_index(int64_t k, int b_bits) {
  return b_bits == 4 ? k / 128 * 128 + k % 2 * 64 + k % 128 / 2 : k;
}

// On the calling thread.
void matmul_u8s8_s32(const MatmulArgs& args, Isa isa);

}  // namespace qnpu
