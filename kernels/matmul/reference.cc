#include "kernels/matmul/paths.h"

namespace qnpu {
namespace {

int32_t weight_at(const uint8_t* row, int64_t k, int bits) {
  if (bits == 8) return static_cast<int8_t>(row[k]);
  const int nibble = k % 2 == 0 ? row[k / 2] & 15 : row[k / 2] >> 4;
  return (nibble ^ 8) - 8;  // sign extension of four bits
}

}  // namespace

void matmul_u8s8_s32_reference(const MatmulArgs& x) {
  for (int64_t i = 0; i < x.m; ++i) {
    for (int64_t j = 0; j < x.n; ++j) {
      int32_t sum = 0;
      for (int64_t k = 0; k < x.k; ++k) {
        sum += x.a[i * x.lda + a_index(k, x.b_bits)] * weight_at(x.b + j * x.ldb, k, x.b_bits);
      }
      x.c[i * x.ldc + j] = sum;
    }
  }
}

}  // namespace qnpu
