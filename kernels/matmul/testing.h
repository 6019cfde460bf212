// Cases of the matmul's tests: A padded and in order, B exactly as long as its rows.
#pragma once

#include <vector>

#include "kernels/matmul/matmul.h"
#include "kernels/testing.h"

namespace qnpu {

struct MatmulCase {
  int m, n, k, bits;
  std::vector<uint8_t> a, b;
  int64_t lda, ldb;
};

inline MatmulCase random_matmul(Random& random, int m, int n, int k, int bits) {
  MatmulCase c{m, n, k, bits, {}, {}, padded_k(k, bits), int64_t{k} * bits / 8};
  c.a.assign(m * c.lda, 0);
  const auto values = random.integers<uint8_t>(int64_t{m} * k, 0, 255);
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < k; ++j) c.a[i * c.lda + a_index(j, bits)] = values[i * k + j];
  }
  c.b = random.integers<uint8_t>(n * c.ldb, 0, 255);
  if (random.one_in(3)) c.b.assign(n * c.ldb, bits == 8 ? 0x80 : 0x88);  // all -128, all -8
  if (random.one_in(3)) c.b.assign(n * c.ldb, bits == 8 ? 0x7f : 0x77);  // all 127, all 7
  return c;
}

// The largest sums that 32 bits must hold: 255 * -128 * K and 255 * 16 * -8 * K inside the 4-bit
// paths.
inline MatmulCase extreme_matmul(int m, int n, int bits) {
  MatmulCase c{m, n, kMaxMatmulK, bits, {}, {}, kMaxMatmulK, int64_t{kMaxMatmulK} * bits / 8};
  c.a.assign(m * c.lda, 255);
  c.b.assign(n * c.ldb, bits == 8 ? 0x80 : 0x88);
  return c;
}

inline constexpr int32_t kUntouched = -77;

// What run(MatmulArgs) makes of [M, N + 3] numbers, the last three of which are none of its
// business.
template <typename Function>
std::vector<int32_t> product(const MatmulCase& c, const Function& run) {
  const int ldc = c.n + 3;
  std::vector<int32_t> out(int64_t{c.m} * ldc, kUntouched);
  run(MatmulArgs{.m = c.m,
                 .n = c.n,
                 .k = c.k,
                 .a = c.a.data(),
                 .lda = c.lda,
                 .b = c.b.data(),
                 .ldb = c.ldb,
                 .b_bits = c.bits,
                 .c = out.data(),
                 .ldc = ldc});
  return out;
}

inline std::vector<int32_t> product(const MatmulCase& c, Isa isa) {
  return product(c, [isa](const MatmulArgs& args) { matmul_u8s8_s32(args, isa); });
}

}  // namespace qnpu
