#include "kernels/matmul/matmul.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "kernels/testing.h"

namespace qnpu {
namespace {

struct Case {
  int m, n, k, bits;
  std::vector<uint8_t> a, b;  // a padded, b exactly as long as its rows
  int64_t lda, ldb;
};

Case random_case(Random& random, int m, int n, int k, int bits) {
  Case c{m, n, k, bits, {}, {}, padded_k(k, bits), int64_t{k} * bits / 8};
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

std::vector<int32_t> product(const Case& c, Isa isa) {
  std::vector<int32_t> out(int64_t{c.m} * c.n, -1);
  matmul_u8s8_s32({.m = c.m,
                   .n = c.n,
                   .k = c.k,
                   .a = c.a.data(),
                   .lda = c.lda,
                   .b = c.b.data(),
                   .ldb = c.ldb,
                   .b_bits = c.bits,
                   .c = out.data(),
                   .ldc = c.n},
                  isa);
  return out;
}

TEST(Matmul, ReferenceByHand) {
  // (1, 2, 3, 255) . (-1, 7, -8, 1) in nibbles, low first; a in even-odd order.
  std::vector<uint8_t> a(128, 0);
  a[0] = 1, a[64] = 2, a[1] = 3, a[65] = 255;
  const Case c{1, 1, 4, 4, a, {0x7f, 0x18}, 128, 2};
  EXPECT_EQ(product(c, Isa::kReference)[0], -1 + 14 - 24 + 255);
}

RC_GTEST_PROP(Matmul, EveryPathEqualsReference, (uint64_t seed)) {
  Random random(seed);
  const int bits = random.one_in(2) ? 8 : 4;
  const int k =
      static_cast<int>(random.one_in(4) ? random.between(240, 700) : random.between(1, 150)) * 2;
  const Case c = random_case(random, static_cast<int>(random.between(1, 22)),
                             static_cast<int>(random.between(1, 40)), k, bits);
  const auto expected = product(c, Isa::kReference);
  for (Isa isa : fast_isas()) RC_ASSERT(product(c, isa) == expected);
}

TEST(Matmul, OddKOfEightBits) {
  Random random(3);
  for (int k = 1; k < 200; k += 7) {
    for (int m : {5, 13}) {
      const Case c = random_case(random, m, 3, k, 8);
      for (Isa isa : fast_isas()) ASSERT_EQ(product(c, isa), product(c, Isa::kReference)) << k;
    }
  }
}

// The largest sums that 32 bits must hold: 255 * -128 * K and 255 * 16 * -8 * K inside the 4-bit
// path.
TEST(Matmul, ExtremesAtTheLargestK) {
  for (int bits : {8, 4}) {
    for (int m : {1, 12}) {
      Case c{m, 1, kMaxMatmulK, bits, {}, {}, kMaxMatmulK, int64_t{kMaxMatmulK} * bits / 8};
      c.a.assign(m * c.lda, 255);
      c.b.assign(c.ldb, bits == 8 ? 0x80 : 0x88);
      const int64_t expected = int64_t{kMaxMatmulK} * 255 * (bits == 8 ? -128 : -8);
      for (Isa isa : all_isas()) EXPECT_EQ(product(c, isa)[m - 1], expected) << isa_name(isa);
    }
  }
}

}  // namespace
}  // namespace qnpu
