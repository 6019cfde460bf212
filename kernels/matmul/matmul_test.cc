#include "kernels/matmul/matmul.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "kernels/matmul/testing.h"

namespace qnpu {
namespace {

TEST(Matmul, ReferenceByHand) {
  // (1, 2, 3, 255) . (-1, 7, -8, 1) in nibbles, low first; a in even-odd order.
  std::vector<uint8_t> a(128, 0);
  a[0] = 1, a[64] = 2, a[1] = 3, a[65] = 255;
  const MatmulCase c{1, 1, 4, 4, a, {0x7f, 0x18}, 128, 2};
  EXPECT_EQ(product(c, Isa::kReference)[0], -1 + 14 - 24 + 255);
}

RC_GTEST_PROP(Matmul, EveryPathEqualsReference, (uint64_t seed)) {
  Random random(seed);
  const int bits = random.one_in(2) ? 8 : 4;
  const int k =
      static_cast<int>(random.one_in(4) ? random.between(240, 700) : random.between(1, 150)) * 2;
  const MatmulCase c = random_matmul(random, static_cast<int>(random.between(1, 22)),
                                     static_cast<int>(random.between(1, 40)), k, bits);
  const auto expected = product(c, Isa::kReference);
  for (Isa isa : fast_isas()) RC_ASSERT(product(c, isa) == expected);
}

TEST(Matmul, OddKOfEightBits) {
  Random random(3);
  for (int k = 1; k < 200; k += 7) {
    for (int m : {5, 13}) {
      const MatmulCase c = random_matmul(random, m, 3, k, 8);
      for (Isa isa : fast_isas()) ASSERT_EQ(product(c, isa), product(c, Isa::kReference)) << k;
    }
  }
}

TEST(Matmul, ExtremesAtTheLargestK) {
  for (int bits : {8, 4}) {
    for (int m : {1, 12}) {
      const MatmulCase c = extreme_matmul(m, 1, bits);
      const int64_t expected = int64_t{kMaxMatmulK} * 255 * (bits == 8 ? -128 : -8);
      for (Isa isa : all_isas()) EXPECT_EQ(product(c, isa)[(m - 1) * 4], expected) << isa_name(isa);
    }
  }
}

}  // namespace
}  // namespace qnpu
