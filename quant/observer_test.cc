// Observers against a recomputation from all the values: sums, sorted quantiles, squared errors.
#include "quant/observer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "quant/random.h"

namespace qnpu {
namespace {

// Sum of uniform numbers: nearly normal, heavier tails by a cube.
std::vector<float> heavy_tailed(int count, uint64_t seed, double shift = 0.0) {
  SplitMix64 random(seed);
  std::vector<float> values;
  for (int i = 0; i < count; ++i) {
    double x = 0.0;
    for (int k = 0; k < 6; ++k) x += random.uniform() - 0.5;
    values.push_back(static_cast<float>(x * x * x + 0.2 * x + shift));
  }
  return values;
}

SiteStatistics statistics_of(const std::vector<float>& values) {
  SiteStatistics stats;
  stats.add(values.data(), static_cast<int64_t>(values.size()));
  return stats;
}

double brute_force_error(const std::vector<float>& values, double scale, int zero_point,
                         IntegerRange range) {
  double total = 0.0;
  for (float x : values) {
    const double q =
        std::clamp<double>(std::nearbyint(x / scale) + zero_point, range.qmin, range.qmax);
    const double error = scale * (q - zero_point) - x;
    total += error * error;
  }
  return total / static_cast<double>(values.size());
}

TEST(Observer, EmptyHasNoValues) {
  const SiteStatistics stats;
  EXPECT_TRUE(stats.empty());
  EXPECT_EQ(stats.mean(), 0.0);
}

TEST(Observer, SumsAndExtremesAreThoseOfAllValues) {
  for (int count : {1, 7, 8, 9, 1000}) {
    const std::vector<float> values = heavy_tailed(count, count, 0.3);
    const SiteStatistics stats = statistics_of(values);
    const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
    double variance = 0.0;
    for (float x : values) variance += (x - mean) * (x - mean) / count;
    EXPECT_EQ(stats.count(), count);
    EXPECT_EQ(stats.min(), *std::min_element(values.begin(), values.end()));
    EXPECT_EQ(stats.max(), *std::max_element(values.begin(), values.end()));
    EXPECT_NEAR(stats.mean(), mean, 1e-12);
    EXPECT_NEAR(stats.sigma(), std::sqrt(variance), 1e-9);
  }
}

TEST(Observer, BinsHoldTheirBounds) {
  for (int bin = 1; bin < SiteStatistics::kBins; ++bin) {
    EXPECT_LT(SiteStatistics::bin_low(bin), SiteStatistics::bin_high(bin));
    EXPECT_LE(SiteStatistics::bin_high(bin), SiteStatistics::bin_low(bin) * (1.0 + 1.0 / 64));
  }
  // A value on a bound belongs to the bin above, one just below it to the bin below: all values in
  // one bin, so that every quantile lies in it.
  for (int bin : {1, 700, 1600, 2500}) {
    const auto low = static_cast<float>(SiteStatistics::bin_low(bin));
    const auto below_high = std::nextafter(static_cast<float>(SiteStatistics::bin_high(bin)), 0.0f);
    for (float sign : {1.0f, -1.0f}) {
      const SiteStatistics stats = statistics_of({sign * low, sign * below_high});
      EXPECT_GE(std::fabs(stats.quantile(0.5)), low);
      EXPECT_LE(std::fabs(stats.quantile(0.5)), below_high);
    }
  }
}

TEST(Observer, QuantilesAreThoseOfTheSortedValues) {
  std::vector<float> values = heavy_tailed(20000, 5);
  const SiteStatistics stats = statistics_of(values);
  std::sort(values.begin(), values.end());
  for (double q : {0.0, 0.0001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.9999, 1.0}) {
    const auto rank = static_cast<size_t>(q * (static_cast<double>(values.size()) - 1));
    const double expected = values[rank];
    // A bin is 1/64 of its value wide; around zero, neighbouring order statistics differ more.
    EXPECT_NEAR(stats.quantile(q), expected, std::fabs(expected) / 60 + 2e-4) << q;
  }
  EXPECT_EQ(stats.quantile(0.0), stats.min());
  EXPECT_EQ(stats.quantile(1.0), stats.max());
}

TEST(Observer, SquaredErrorIsThatOfAllValues) {
  const std::vector<float> values = heavy_tailed(50000, 9, 0.1);
  const SiteStatistics stats = statistics_of(values);
  const double largest = std::max(stats.max(), -stats.min());
  for (DType dtype : {DType::kS4, DType::kS8, DType::kS16}) {
    const IntegerRange range = integer_range(dtype);
    for (double clip : {1.0, 0.7, 0.3, 0.1}) {
      for (int zero_point : {0, range.qmin / 3}) {
        const double scale = clip * largest / range.qmax;
        const double expected = brute_force_error(values, scale, zero_point, range);
        const double actual = stats.mean_squared_error(scale, zero_point, range);
        EXPECT_NEAR(actual, expected, 0.04 * expected)
            << dtype_name(dtype) << " " << clip << " " << zero_point;
      }
    }
  }
}

TEST(Observer, OrderAndCutsDoNotMatter) {
  std::vector<float> values = heavy_tailed(4096, 3);
  const SiteStatistics whole = statistics_of(values);
  SiteStatistics parts;
  for (size_t begin = 0; begin < values.size(); begin += 1024) {
    SiteStatistics part;
    part.add(values.data() + begin, 1024);
    parts.merge(part);
  }
  std::reverse(values.begin(), values.end());
  const SiteStatistics reversed = statistics_of(values);
  for (const SiteStatistics* other : {&std::as_const(parts), &reversed}) {
    EXPECT_EQ(whole.count(), other->count());
    EXPECT_EQ(whole.min(), other->min());
    EXPECT_EQ(whole.max(), other->max());
    EXPECT_NEAR(whole.mean(), other->mean(), 1e-12);
    for (double q : {0.001, 0.4, 0.999}) EXPECT_EQ(whole.quantile(q), other->quantile(q));
    EXPECT_EQ(whole.mean_squared_error(0.01, 0, integer_range(DType::kS8)),
              other->mean_squared_error(0.01, 0, integer_range(DType::kS8)));
  }
}

TEST(Observer, StrideThinsTheHistogramOnly) {
  const std::vector<float> values = heavy_tailed(60000, 4);
  SiteStatistics thin;
  thin.add(values.data(), static_cast<int64_t>(values.size()), 7);
  const SiteStatistics whole = statistics_of(values);
  EXPECT_EQ(thin.max(), whole.max());
  EXPECT_EQ(thin.mean(), whole.mean());
  EXPECT_NEAR(thin.quantile(0.9), whole.quantile(0.9), 0.05 * whole.quantile(0.9));
}

TEST(Observer, SeesNanAndInfinity) {
  EXPECT_TRUE(statistics_of({1.0f, -2.0f}).finite());
  EXPECT_FALSE(statistics_of({1.0f, NAN}).finite());
  EXPECT_FALSE(statistics_of({1.0f, INFINITY}).finite());
}

TEST(Observer, OnlyZerosHaveNoError) {
  const SiteStatistics stats = statistics_of(std::vector<float>(100, 0.0f));
  EXPECT_EQ(stats.mean_squared_error(1e-6, 0, integer_range(DType::kS8)), 0.0);
  EXPECT_EQ(stats.quantile(0.5), 0.0);
}

TEST(Observer, PowerRatioInDecibels) {
  EXPECT_NEAR(power_ratio_db(1.0, 0.01), 20.0, 1e-12);
  EXPECT_EQ(power_ratio_db(1.0, 0.0), 200.0);
  EXPECT_EQ(power_ratio_db(0.0, 0.0), 0.0);
}

// Against counts of the values themselves: below each edge the estimate may be off by what lies in
// the logarithmic bin around it, 1 / 64 of the edge wide.
TEST(Observer, UniformBinsCountTheValues) {
  for (const double shift : {0.0, 0.4, -3.0}) {
    const std::vector<float> values = heavy_tailed(20000, 11, shift);
    const SiteStatistics stats = statistics_of(values);
    const auto below = [&](double x) {
      return std::count_if(values.begin(), values.end(), [&](float v) { return v < x; });
    };
    const int bins = 64;
    const std::vector<int64_t> counts = stats.uniform_bins(bins);
    int64_t sum = 0;
    for (int i = 0; i < bins; ++i) {
      EXPECT_GE(counts[i], 0);
      sum += counts[i];
      const double edge = stats.min() + (stats.max() - stats.min()) * (i + 1) / bins;
      const double reach = std::abs(edge) / 64 + 1e-6;
      EXPECT_GE(sum, below(edge - reach) - 1) << i;
      EXPECT_LE(sum, below(edge + reach) + 1 + (i + 1 == bins)) << i;
    }
    EXPECT_EQ(sum, 20000);
  }
}

TEST(Observer, UniformBinsOfOneValueAndOfNone) {
  const std::vector<float> values(5, 0.75f);
  const std::vector<int64_t> counts = statistics_of(values).uniform_bins(4);
  EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), int64_t{0}), 5);
  EXPECT_EQ(SiteStatistics().uniform_bins(2), (std::vector<int64_t>{0, 0}));
}

TEST(Observer, RelativeErrorIsNearThatOfAllValues) {
  const std::vector<float> values = heavy_tailed(20000, 12);
  const SiteStatistics stats = statistics_of(values);
  for (const double steps : {7.0, 127.0, 32767.0}) {
    const double scale = std::max(-stats.min(), stats.max()) / steps;
    double sum = 0.0;
    for (const float x : values) {
      const double y = std::floor(x / scale + 0.5) * scale;
      sum += std::abs(y - x) / (std::abs(x) + 1e-8);
    }
    const double wanted = sum / static_cast<double>(values.size());
    const auto limit = static_cast<int32_t>(steps);
    EXPECT_NEAR(stats.mean_relative_error(scale, 0, {-limit, limit}), wanted, 0.03 * wanted + 1e-6);
  }
}

}  // namespace
}  // namespace qnpu
