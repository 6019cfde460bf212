// Frozen linears: snapped multipliers, sums, biases, the int32 proof.
#include "quant/freeze_linear.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/law.h"
#include "io/test_folder.h"
#include "quant/random.h"

namespace qnpu {
namespace {

using testing::HasSubstr;

struct Example {
  std::vector<float> weight, bias;
  LinearToFreeze linear;
};

// `n` rows of `k` weights around 0.05, scales of a plausible layer.
Example random_example(SplitMix64& random, int64_t n, int64_t k, int weight_bits,
                       int activation_bits) {
  Example e;
  for (int64_t i = 0; i < n * k; ++i) {
    e.weight.push_back(static_cast<float>(0.1 * (random.uniform() - 0.5)));
  }
  for (int64_t i = 0; i < n; ++i) {
    e.bias.push_back(static_cast<float>(20.0 * (random.uniform() - 0.5)));
  }
  const auto steps = [](int bits) { return std::ldexp(1.0, bits - 1) - 1.0; };
  const int output_bits = std::max(8, activation_bits);
  e.linear.name = "layers.0.mlp.up_proj";
  e.linear.weight = {e.weight.data(), n, k};
  e.linear.weight_range = weight_range({.bitwidth = weight_bits});
  e.linear.activation_bits = activation_bits;
  e.linear.x_scale = static_cast<float>((1.0 + 10.0 * random.uniform()) / steps(activation_bits));
  e.linear.y_scale = static_cast<float>((1.0 + 10.0 * random.uniform()) / steps(output_bits));
  e.linear.scale.resize(static_cast<size_t>(n));
  weight_scales(e.linear.weight, {.bitwidth = weight_bits}, false, e.linear.scale.data());
  return e;
}

// 12 significant bits, up to what storing a scale as float32 does.
void expect_snapped(double m) { EXPECT_NEAR(m / snap_multiplier(m), 1.0, 1e-7); }

TEST(FreezeLinear, ARowOfScaleZeroIsZero) {
  SplitMix64 random(4);
  Example e = random_example(random, 2, 32, 4, 8);
  e.linear.scale[0] = 0.0f;
  const FrozenLinear f = freeze_linear(e.linear);
  EXPECT_EQ(std::vector<int8_t>(f.q.begin(), f.q.begin() + 32), std::vector<int8_t>(32, 0));
  EXPECT_EQ(f.row_sum[0], 0);
  EXPECT_NE(std::vector<int8_t>(f.q.begin() + 32, f.q.end()), std::vector<int8_t>(32, 0));
}

TEST(FreezeLinear, MultipliersHaveTwelveBitsAndScalesFollow) {
  SplitMix64 random(1);
  int exact = 0, rows = 0;  // in single precision
  for (int weight_bits : {4, 8}) {
    for (int activation_bits : {4, 8, 16}) {
      const Example e = random_example(random, 64, 96, weight_bits, activation_bits);
      const FrozenLinear f = freeze_linear(e.linear);
      for (int64_t n = 0; n < 64; ++n) {
        const double m = e.linear.x_scale * f.scale[n] / e.linear.y_scale;
        expect_snapped(m);
        const double snapped = snap_multiplier(m);
        const Requant r = activation_bits <= 8 ? make_requant8(snapped) : make_requant16(snapped);
        EXPECT_EQ(f.mantissa[n], r.mantissa);
        EXPECT_EQ(f.shift[n], r.shift);
        EXPECT_NEAR(f.scale[n] / e.linear.scale[n], 1.0, 2.5 / 2048);  // two and a half steps
        const float ratio =
            static_cast<float>(e.linear.x_scale) / static_cast<float>(e.linear.y_scale);
        exact += ratio * f.scale[n] == snapped;
        ++rows;
      }
    }
  }
  EXPECT_GE(exact, rows * 99 / 100);
}

TEST(FreezeLinear, WeightsAreRoundedWithTheSnappedScale) {
  SplitMix64 random(2);
  const Example e = random_example(random, 8, 40, 4, 8);
  const FrozenLinear f = freeze_linear(e.linear);
  for (int64_t n = 0; n < 8; ++n) {
    int sum = 0;
    for (int64_t i = 0; i < 40; ++i) {
      const double exact = e.weight[n * 40 + i] / static_cast<double>(f.scale[n]);
      EXPECT_NEAR(f.q[n * 40 + i], std::clamp(exact, -7.0, 7.0), 0.5001);
      sum += f.q[n * 40 + i];
    }
    EXPECT_EQ(f.row_sum[n], sum);
  }
}

TEST(FreezeLinear, BiasesAreInAccumulatorSteps) {
  SplitMix64 random(3);
  for (int bits : {4, 8, 16}) {
    Example e = random_example(random, 16, 32, 8, bits);
    e.linear.bias = e.bias.data();
    const FrozenLinear f = freeze_linear(e.linear);
    for (int64_t n = 0; n < 16; ++n) {
      const double step = e.linear.x_scale * f.scale[n] * (bits == 16 ? 256 : 1);
      EXPECT_NEAR(f.bias[n] * step, e.bias[n], step);
    }
  }
}

TEST(FreezeLinear, RowsOfZerosFreezeToZero) {
  SplitMix64 random(4);
  Example e = random_example(random, 2, 16, 4, 8);
  std::fill_n(e.weight.begin(), 16, 0.0f);
  e.linear.weight.data = e.weight.data();
  weight_scales(e.linear.weight, {.bitwidth = 4}, false, e.linear.scale.data());
  const FrozenLinear f = freeze_linear(e.linear);
  EXPECT_GT(f.scale[0], 0.0f);
  EXPECT_EQ(f.row_sum[0], 0);
  EXPECT_GT(f.mantissa[0], 0);
}

TEST(FreezeLinear, RefusesWhatCanOverflow) {
  // 140 000 weights of 127 times 128 exceed 2^31; two planes of 255 do so at half of that.
  const std::vector<float> weight(140000, 1.0f);
  LinearToFreeze linear;
  linear.name = "layers.3.mlp.down_proj";
  linear.weight = {weight.data(), 1, 140000};
  linear.scale = {1.0f / 127};
  linear.x_scale = 0.01;
  linear.y_scale = 1.0;
  EXPECT_THAT(error_of([&] { freeze_linear(linear); }),
              HasSubstr("'layers.3.mlp.down_proj': channel 0 can overflow"));
  linear.activation_bits = 16;
  linear.weight.k = 70000;
  EXPECT_THAT(error_of([&] { freeze_linear(linear); }), HasSubstr("can overflow"));
  linear.activation_bits = 8;
  freeze_linear(linear);  // half of it fits in 8 bits
  linear.activation_bits = 4;
  linear.weight.k = 140000;
  freeze_linear(linear);  // 4-bit inputs are sixteen times smaller
}

TEST(FreezeLinear, RefusesScalesThatDoNotFit) {
  SplitMix64 random(5);
  Example e = random_example(random, 1, 16, 8, 8);
  e.linear.y_scale = 1e-9;
  EXPECT_THAT(error_of([&] { freeze_linear(e.linear); }),
              HasSubstr("linear 'layers.0.mlp.up_proj'"));
}

TEST(FreezeLinear, PacksTheLowNibbleFirst) {
  EXPECT_EQ(pack_nibbles({1, -1, 7, -7}), (std::vector<uint8_t>{0xf1, 0x97}));
}

}  // namespace
}  // namespace qnpu
