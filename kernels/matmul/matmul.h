// The one integer product under everything: C[M, N] = sum over k of A[M, K] * B[N, K], exact in
// int32 (freeze proves that it fits). Signed operands reach it as unsigned with an offset that the
// callers take back with row sums of B.
#pragma once

#include <cstdint>

#include "kernels/isa.h"

namespace qnpu {

struct MatmulArgs {
  int m = 0, n = 0, k = 0;
  const uint8_t* a = nullptr;  // [M, lda]
  int64_t lda = 0;
  const uint8_t* b = nullptr;  // s8: [N, ldb] bytes; s4: two per byte, low nibble first
  int64_t ldb = 0;             // in bytes
  int b_bits = 8;              // 8 or 4
  int32_t* c = nullptr;        // [M, ldc]
  int64_t ldc = 0;
};

void matmul_u8s8_s32(const MatmulArgs& args, Isa isa);

}  // namespace qnpu
