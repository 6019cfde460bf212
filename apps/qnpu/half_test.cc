#include "apps/qnpu/half.h"

#include <gtest/gtest.h>

namespace qnpu {
namespace {

TEST(Half, EveryFiniteHalfSurvivesTheRoundTrip) {
  for (uint32_t half = 0; half < 0x10000; ++half) {
    if ((half & 0x7c00) == 0x7c00) continue;  // infinity and NaN
    EXPECT_EQ(float_to_half(half_to_float(static_cast<uint16_t>(half))), half);
  }
}

TEST(Half, KnownValues) {
  EXPECT_EQ(half_to_float(0x3c00), 1.0f);
  EXPECT_EQ(half_to_float(0xc000), -2.0f);
  EXPECT_EQ(half_to_float(0x7bff), 65504.0f);
  EXPECT_EQ(half_to_float(0x0001), 0x1p-24f);
}

TEST(Half, RoundsToNearestTiesToEven) {
  EXPECT_EQ(float_to_half(1.0f + 0x1p-11f), 0x3c00);  // halfway between 1 and its successor
  EXPECT_EQ(float_to_half(1.0f + 3 * 0x1p-11f), 0x3c02);
  EXPECT_EQ(float_to_half(1.0f + 0x1.1p-11f), 0x3c01);
  EXPECT_EQ(float_to_half(-1e6f), 0xfbff);
  EXPECT_EQ(float_to_half(0x1p-26f), 0x0000);
}

}  // namespace
}  // namespace qnpu
