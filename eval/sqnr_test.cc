#include "eval/sqnr.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace qnpu {
namespace {

TEST(Sqnr, KnownRatios) {
  const std::vector<float> reference = {10.0f, -10.0f};
  EXPECT_NEAR(sqnr_db(reference, std::vector<float>{11.0f, -9.0f}), 20.0, 1e-12);
  EXPECT_NEAR(sqnr_db(reference, std::vector<float>{0.0f, 0.0f}), 0.0, 1e-12);
  EXPECT_TRUE(std::isinf(sqnr_db(reference, reference)));
}

TEST(Sqnr, PiecesAddUp) {
  const std::vector<float> reference = {1.0f, 2.0f, -3.0f, 4.0f};
  const std::vector<float> quantized = {1.1f, 1.8f, -3.0f, 4.2f};
  const std::span<const float> x(reference);
  const std::span<const float> y(quantized);
  SqnrSum sum;
  sum.add(x.first(1), y.first(1));
  sum.add(x.subspan(1), y.subspan(1));
  EXPECT_DOUBLE_EQ(sum.db(), sqnr_db(reference, quantized));
}

// A uniform quantizer's noise is step^2 / 12: 6.02 dB per bit on a uniform signal.
TEST(Sqnr, EightBitsOfAUniformSignalGive48Decibels) {
  std::vector<float> reference, quantized;
  for (int i = 0; i < 100000; ++i) {
    const double x = -1.0 + 2.0 * (i + 0.5) / 100000;
    reference.push_back(static_cast<float>(x));
    quantized.push_back(static_cast<float>((std::floor(x * 128) + 0.5) / 128));
  }
  EXPECT_NEAR(sqnr_db(reference, quantized), 20 * std::log10(256.0), 0.01);
}

}  // namespace
}  // namespace qnpu
