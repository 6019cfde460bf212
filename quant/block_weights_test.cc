// Blocks against the formula by hand, and against scales per channel.
#include "quant/block_weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "quant/random.h"

namespace qnpu {
namespace {

constexpr int kBlock = 16;

// Blocks of very different size, the third one of zeros.
std::vector<float> weights(int64_t n, int64_t k, uint64_t seed) {
  SplitMix64 random(seed);
  std::vector<float> w;
  for (int64_t i = 0; i < n * k; ++i) {
    const int64_t block = i % k / kBlock;
    const double size = block == 2 ? 0.0 : std::pow(2.0, -block);
    w.push_back(static_cast<float>(size * (random.uniform() + random.uniform() - 1.0)));
  }
  return w;
}

struct Rounded {
  std::vector<float> block, scale;
  std::vector<int8_t> q;
};

Rounded round_blocks(WeightRows rows, const QuantSpec& spec) {
  Rounded r;
  r.block.resize(rows.n * rows.k / spec.block_size);
  r.scale.resize(rows.n);
  r.q.resize(rows.n * rows.k);
  block_scales(rows, spec, false, r.block.data());
  channel_scales(r.block, r.scale);
  for (float& s : r.scale) s = std::max(s, 1e-6f);
  round_block_weights(rows, spec.block_size, r.block.data(), r.scale.data(), r.q.data());
  return r;
}

QuantSpec blocks_of(int size, Observer observer = Observer::kMinMax) {
  return {.bitwidth = 4, .observer = observer, .block_size = size};
}

TEST(BlockWeights, AreTheFormula) {
  const int64_t n = 6, k = 6 * kBlock;
  const std::vector<float> w = weights(n, k, 1);
  const Rounded r = round_blocks({w.data(), n, k}, blocks_of(kBlock));
  for (int64_t row = 0; row < n; ++row) {
    double largest = 0.0;
    for (int64_t i = 0; i < k; ++i) largest = std::max<double>(largest, std::fabs(w[row * k + i]));
    EXPECT_NEAR(r.scale[row], largest / 7 / 16, 1e-7 * largest);
    for (int64_t begin = 0; begin < k; begin += kBlock) {
      double size = 0.0;
      for (int i = 0; i < kBlock; ++i) {
        size = std::max<double>(size, std::fabs(w[row * k + begin + i]));
      }
      const double m = std::clamp(std::round(size / 7 / r.scale[row]), 1.0, 16.0);
      for (int i = 0; i < kBlock; ++i) {
        const int64_t at = row * k + begin + i;
        const double q = std::clamp(std::nearbyint(w[at] / (m * r.scale[row])), -7.0, 7.0);
        EXPECT_EQ(r.q[at], m * q) << row << " " << begin + i;
      }
    }
  }
}

TEST(BlockWeights, EqualBlocksAreWeightsPerChannel) {
  SplitMix64 random(3);
  std::vector<float> w(4 * kBlock);
  for (float& x : w) x = static_cast<float>(random.uniform() - 0.5);
  for (int block = 0; block < 4; ++block) w[block * kBlock] = 0.75f;
  const WeightRows rows{w.data(), 1, 4 * kBlock};
  const Rounded r = round_blocks(rows, blocks_of(kBlock));
  std::vector<int8_t> q(w.size());
  const float scale = 0.75f / 7;
  round_weights(rows, &scale, {-7, 7}, q.data());
  for (size_t i = 0; i < w.size(); ++i) EXPECT_EQ(r.q[i], 16 * q[i]);
}

TEST(BlockWeights, ErrLessThanWeightsPerChannel) {
  for (Observer observer : {Observer::kMinMax, Observer::kMse}) {
    for (uint64_t seed = 0; seed < 20; ++seed) {
      const int64_t n = 4, k = 8 * kBlock;
      const std::vector<float> w = weights(n, k, seed);
      const WeightRows rows{w.data(), n, k};
      const Rounded r = round_blocks(rows, blocks_of(kBlock, observer));
      std::vector<float> scale(n);
      std::vector<int8_t> q(w.size());
      weight_scales(rows, {.bitwidth = 4, .observer = observer}, false, scale.data());
      round_weights(rows, scale.data(), {-7, 7}, q.data());
      EXPECT_LT(weight_error(rows, r.scale.data(), r.q.data()),
                weight_error(rows, scale.data(), q.data()));
    }
  }
}

TEST(BlockWeights, StayWithin112) {
  const std::vector<float> w = weights(8, 12 * kBlock, 5);
  const Rounded r = round_blocks({w.data(), 8, 12 * kBlock}, blocks_of(kBlock, Observer::kMse));
  const auto [low, high] = std::minmax_element(r.q.begin(), r.q.end());
  EXPECT_GE(*low, -112);
  EXPECT_LE(*high, 112);
  EXPECT_GT(*high, 7);
}

}  // namespace
}  // namespace qnpu
