// Weight scales and rounding against plain recomputations.
#include "quant/weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "quant/random.h"

namespace qnpu {
namespace {

std::vector<float> random_rows(int64_t n, int64_t k, uint64_t seed) {
  SplitMix64 random(seed);
  std::vector<float> w(static_cast<size_t>(n * k));
  for (float& x : w) {
    const double u = random.uniform() + random.uniform() + random.uniform() - 1.5;
    x = static_cast<float>(u * u * u);
  }
  return w;
}

QuantSpec spec_of(int bits, Observer observer) {
  QuantSpec spec;
  spec.bitwidth = bits;
  spec.observer = observer;
  return spec;
}

std::vector<float> scales_of(WeightRows rows, const QuantSpec& spec, bool rotated = false) {
  std::vector<float> scale(static_cast<size_t>(rows.n));
  weight_scales(rows, spec, rotated, scale.data());
  return scale;
}

double error_of_scales(WeightRows rows, const std::vector<float>& scale, int bits) {
  std::vector<int8_t> q(static_cast<size_t>(rows.n * rows.k));
  round_weights(rows, scale.data(), weight_range(spec_of(bits, Observer::kMse)), q.data());
  return weight_error(rows, scale.data(), q.data());
}

TEST(Weights, MinMaxIsTheLargestMagnitude) {
  const std::vector<float> w = random_rows(5, 37, 1);
  const WeightRows rows{w.data(), 5, 37};
  for (int bits : {4, 8}) {
    const std::vector<float> scale = scales_of(rows, spec_of(bits, Observer::kMinMax));
    for (int64_t r = 0; r < 5; ++r) {
      float largest = 0.0f;
      for (int64_t i = 0; i < 37; ++i) largest = std::max(largest, std::fabs(w[r * 37 + i]));
      EXPECT_EQ(scale[r], largest / weight_range(spec_of(bits, Observer::kMinMax)).qmax);
    }
  }
}

TEST(Weights, Mean3SigmaIsTheFormula) {
  const std::vector<float> w = random_rows(1, 1000, 2);
  double mean = 0.0;
  double square = 0.0;
  for (float x : w) mean += x / 1000.0;
  for (float x : w) square += (x - mean) * (x - mean) / 1000.0;
  const double limit = std::fabs(mean) + 3.0 * std::sqrt(square);
  // kAuto: the same for rotated weights of 4 bits.
  for (Observer observer : {Observer::kMean3Sigma, Observer::kAuto}) {
    EXPECT_NEAR(scales_of({w.data(), 1, 1000}, spec_of(4, observer), true)[0], limit / 8, 1e-6);
  }
}

TEST(Weights, PercentileIsASortedMagnitude) {
  std::vector<float> w = random_rows(1, 1000, 3);
  QuantSpec spec = spec_of(8, Observer::kPercentile);
  spec.percentile = 99.0;
  const float scale = scales_of({w.data(), 1, 1000}, spec)[0];
  for (float& x : w) x = std::fabs(x);
  std::sort(w.begin(), w.end());
  EXPECT_EQ(scale, w[989] / 127.0f);
}

TEST(Weights, MseIsNeverWorseThanMinMax) {
  for (int64_t k : {3, 16, 129, 1536}) {
    const std::vector<float> w = random_rows(20, k, static_cast<uint64_t>(k));
    const WeightRows rows{w.data(), 20, k};
    for (int bits : {4, 8}) {
      const std::vector<float> mse = scales_of(rows, spec_of(bits, Observer::kMse));
      const std::vector<float> minmax = scales_of(rows, spec_of(bits, Observer::kMinMax));
      for (int64_t r = 0; r < rows.n; ++r) {
        const WeightRows row{w.data() + r * k, 1, k};
        const double a = error_of_scales(row, {mse[r]}, bits);
        const double b = error_of_scales(row, {minmax[r]}, bits);
        EXPECT_LE(a, b * (1.0 + 1e-5)) << k << " " << bits << " " << r;
      }
    }
  }
}

TEST(Weights, MseIsTheBestOfItsGrid) {
  const std::vector<float> w = random_rows(4, 200, 7);
  const WeightRows rows{w.data(), 4, 200};
  const std::vector<float> found = scales_of(rows, spec_of(4, Observer::kMse));
  const std::vector<float> minmax = scales_of(rows, spec_of(4, Observer::kMinMax));
  for (int64_t r = 0; r < 4; ++r) {
    const WeightRows row{w.data() + r * 200, 1, 200};
    double best = 1e300;
    for (int i = 0; i < 80; ++i) {
      const float scale = minmax[r] * (0.3f + 0.7f * static_cast<float>(i) / 79.0f);
      best = std::min(best, error_of_scales(row, {scale}, 4));
    }
    EXPECT_LE(error_of_scales(row, {found[r]}, 4), best * (1.0 + 1e-4));
  }
}

TEST(Weights, RoundsToNearestEvenAndSaturates) {
  const std::vector<float> w = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 0.49f, -0.51f, 9.0f, -9.0f};
  std::vector<int8_t> q(w.size());
  const float one = 1.0f;
  round_weights({w.data(), 1, 10}, &one, {-7, 7}, q.data());
  EXPECT_EQ(q, (std::vector<int8_t>{0, 2, 2, 0, -2, -2, 0, -1, 7, -7}));
  round_weights({w.data(), 1, 10}, &one, {-8, 7}, q.data());
  EXPECT_EQ(q, (std::vector<int8_t>{0, 2, 2, 0, -2, -2, 0, -1, 7, -8}));
  const float small = 0.01f;
  round_weights({w.data(), 1, 10}, &small, {-127, 127}, q.data());
  EXPECT_EQ(q[8], 127);
  EXPECT_EQ(q[9], -127);
}

TEST(Weights, TheIntegerMinusEightLowersTheError) {
  const QuantSpec narrow = spec_of(4, Observer::kMse);
  QuantSpec full = narrow;
  full.narrow_range = false;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const std::vector<float> w = random_rows(4, 200, seed);
    const WeightRows rows{w.data(), 4, 200};
    const auto error = [&](const QuantSpec& spec) {
      const std::vector<float> scale = scales_of(rows, spec);
      std::vector<int8_t> q(w.size());
      round_weights(rows, scale.data(), weight_range(spec), q.data());
      return weight_error(rows, scale.data(), q.data());
    };
    EXPECT_LT(error(full), error(narrow));
  }
}

TEST(Weights, RowsOfScaleZeroAreZero) {
  const std::vector<float> w = {0.0f, 1.0f, -2.0f, 4.0f};
  const std::vector<float> scale = {0.0f, 1.0f};
  std::vector<int8_t> q(4, 1);
  round_weights({w.data(), 2, 2}, scale.data(), {-7, 7}, q.data());
  EXPECT_EQ(q, (std::vector<int8_t>{0, 0, -2, 4}));
}

TEST(Weights, RowsOfZerosHaveScaleZero) {
  const std::vector<float> w(64, 0.0f);
  for (Observer observer :
       {Observer::kMinMax, Observer::kMse, Observer::kPercentile, Observer::kMean3Sigma}) {
    EXPECT_EQ(scales_of({w.data(), 1, 64}, spec_of(4, observer))[0], 0.0f);
  }
}

}  // namespace
}  // namespace qnpu
