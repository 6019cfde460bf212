#include "export/linear.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "base/status.h"

namespace qnpu {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kRows = 5, kCols = 64, kBlock = 32;

// Products of random multipliers and 4-bit integers, [N, K].
std::vector<int8_t> random_products(std::mt19937& random) {
  std::vector<int8_t> products(kRows * kCols);
  int m = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    if (i % kBlock == 0) m = 1 + static_cast<int>(random() % 16);
    products[i] = static_cast<int8_t>(m * (static_cast<int>(random() % 15) - 7));
  }
  return products;
}

int nibble(const BlockWeights& split, int64_t k, int64_t n) {
  const auto at = static_cast<size_t>(k * kRows + n);
  const int bits = (std::to_integer<int>(split.q[at / 2]) >> (at % 2 == 0 ? 0 : 4)) & 15;
  return bits < 8 ? bits : bits - 16;
}

TEST(SplitProducts, MultiplyBackToTheSame) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 50; ++trial) {
    const std::vector<int8_t> products = random_products(random);
    const BlockWeights split = split_products(products, kRows, kCols, kBlock, "w");
    for (int64_t n = 0; n < kRows; ++n) {
      for (int64_t k = 0; k < kCols; ++k) {
        const int m = std::to_integer<int>(split.multiplier[(k / kBlock) * kRows + n]);
        const int q = nibble(split, k, n);
        EXPECT_LE(std::abs(q), 7);
        EXPECT_EQ(m * q, products[n * kCols + k]);
      }
    }
  }
}

TEST(SplitProducts, RefuseOtherIntegers) {
  std::vector<int8_t> products(kRows * kCols, 112);
  products[kCols + 3] = 111;
  try {
    split_products(products, kRows, kCols, kBlock, "layers.0.mlp.up_proj.weight");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("layers.0.mlp.up_proj.weight"));
  }
}

}  // namespace
}  // namespace qnpu
