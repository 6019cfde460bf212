// From statistics to scales: the formulas, the grid search against a finer one, ties and errors.
#include "quant/ranges.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "io/test_folder.h"
#include "quant/random.h"

namespace qnpu {
namespace {

using testing::HasSubstr;

std::vector<float> random_values(SplitMix64& random, int count) {
  const double size = std::ldexp(1.0, static_cast<int>(random.below(24)) - 12);
  const double shift = random.uniform() * 2.0 - 1.0;
  const double power = 1.0 + 4.0 * random.uniform();
  std::vector<float> values;
  for (int i = 0; i < count; ++i) {
    const double u = 2.0 * random.uniform() - 1.0;
    values.push_back(
        static_cast<float>(size * (std::copysign(std::pow(std::fabs(u), power), u) + shift)));
  }
  return values;
}

SiteStatistics statistics_of(const std::vector<float>& values) {
  SiteStatistics stats;
  stats.add(values.data(), static_cast<int64_t>(values.size()));
  return stats;
}

QuantSpec spec_of(int bits, bool symmetric, Observer observer) {
  QuantSpec spec;
  spec.bitwidth = bits;
  spec.symmetric = symmetric;
  spec.observer = observer;
  return spec;
}

DType dtype_of(int bits) { return bits == 4 ? DType::kS4 : bits == 8 ? DType::kS8 : DType::kS16; }

TEST(Ranges, AutoIsAFunctionOfRotationAndBits) {
  const auto resolved = [](int bits, bool rotated) {
    return resolve_observer(spec_of(bits, true, Observer::kAuto), rotated);
  };
  EXPECT_EQ(resolved(4, true), Observer::kMean3Sigma);
  EXPECT_EQ(resolved(4, false), Observer::kMinMax);
  EXPECT_EQ(resolved(8, true), Observer::kMinMax);
  EXPECT_EQ(resolved(16, true), Observer::kMinMax);
  EXPECT_EQ(resolve_observer(spec_of(4, true, Observer::kMse), true), Observer::kMse);
}

TEST(Ranges, SymmetricMinMaxCoversTheValues) {
  SplitMix64 random(1);
  for (int trial = 0; trial < 200; ++trial) {
    const SiteStatistics stats = statistics_of(random_values(random, 500));
    for (int bits : {4, 8, 16}) {
      const QParams q =
          choose_qparams(stats, spec_of(bits, true, Observer::kMinMax), false, dtype_of(bits));
      const double largest = std::max(-stats.min(), stats.max());
      EXPECT_EQ(q.zero_point[0], 0);
      EXPECT_EQ(q.scale[0], static_cast<float>(largest / ((1 << (bits - 1)) - 1)));
    }
  }
}

TEST(Ranges, AsymmetricMinMaxCoversTheValuesAndZero) {
  SplitMix64 random(2);
  for (int trial = 0; trial < 200; ++trial) {
    const SiteStatistics stats = statistics_of(random_values(random, 500));
    for (int bits : {8, 16}) {
      const QParams q =
          choose_qparams(stats, spec_of(bits, false, Observer::kMinMax), false, dtype_of(bits));
      const auto [qmin, qmax] = integer_range(dtype_of(bits));
      const double scale = q.scale[0];
      EXPECT_GE(q.zero_point[0], qmin);
      EXPECT_LE(q.zero_point[0], qmax);
      // Rounding the zero point may move both ends by half a step.
      EXPECT_GE(stats.min(), scale * (qmin - q.zero_point[0]) - 0.51 * scale);
      EXPECT_LE(stats.max(), scale * (qmax - q.zero_point[0]) + 0.51 * scale);
    }
  }
}

TEST(Ranges, Mean3SigmaIsTheFormula) {
  SplitMix64 random(3);
  const SiteStatistics stats = statistics_of(random_values(random, 2000));
  const double limit = std::max(std::fabs(stats.mean() - 3 * stats.sigma()),
                                std::fabs(stats.mean() + 3 * stats.sigma()));
  for (int bits : {4, 8}) {
    const QParams q =
        choose_qparams(stats, spec_of(bits, true, Observer::kMean3Sigma), true, dtype_of(bits));
    EXPECT_NEAR(q.scale[0], limit / (1 << (bits - 1)), 1e-6 * limit);
  }
}

TEST(Ranges, PercentileClipsOutliers) {
  std::vector<float> values;
  for (int i = -5000; i <= 5000; ++i) values.push_back(static_cast<float>(i) / 5000.0f);
  values.push_back(1000.0f);
  QuantSpec spec = spec_of(8, true, Observer::kPercentile);
  spec.percentile = 99.9;
  const QParams q = choose_qparams(statistics_of(values), spec, false, DType::kS8);
  EXPECT_NEAR(q.scale[0] * 127, 0.998, 0.02);
}

// The error is a bumpy function of the clip (a spike in the distribution may or may not meet a grid
// point), so the search comes near the best of a fine grid, and is never worse than min-max.
TEST(Ranges, MseIsNearlyTheBestClip) {
  SplitMix64 random(4);
  for (int trial = 0; trial < 20; ++trial) {
    const SiteStatistics stats = statistics_of(random_values(random, 4000));
    const auto error = [&](const QParams& q) {
      return stats.mean_squared_error(q.scale[0], q.zero_point[0], integer_range(q.dtype));
    };
    const double found =
        error(choose_qparams(stats, spec_of(8, true, Observer::kMse), false, DType::kS8));
    double best = 1e300;
    const double largest = std::max(-stats.min(), stats.max());
    for (double f = 0.02; f <= 1.0; f += 0.0005) {
      best = std::min(best, error(qparams_of({-f * largest, f * largest}, true, DType::kS8)));
    }
    EXPECT_LE(found, 1.06 * best) << trial;
    for (bool symmetric : {true, false}) {
      const auto of = [&](Observer observer) {
        return error(choose_qparams(stats, spec_of(8, symmetric, observer), false, DType::kS8));
      };
      EXPECT_LE(of(Observer::kMse), of(Observer::kMinMax)) << trial;
    }
  }
}

TEST(Ranges, ZeroSitesGetATinyScale) {
  const SiteStatistics stats = statistics_of({0.0f, 0.0f});
  for (Observer observer :
       {Observer::kMinMax, Observer::kPercentile, Observer::kMean3Sigma, Observer::kMse}) {
    const QParams q8 = choose_qparams(stats, spec_of(8, true, observer), false, DType::kS8);
    const QParams q16 = choose_qparams(stats, spec_of(16, false, observer), false, DType::kS16);
    EXPECT_EQ(q8.scale[0], static_cast<float>(1e-4 / 255));
    EXPECT_EQ(q16.scale[0], static_cast<float>(1e-4 / 65535));
  }
}

// ---- A whole graph ----

ModelConfig small_config() {
  ModelConfig config;
  config.architecture = "llama";
  config.vocab_size = 32;
  config.hidden_size = 16;
  config.intermediate_size = 24;
  config.num_layers = 1;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 8;
  config.max_positions = 64;
  return config;
}

std::vector<SiteStatistics> statistics_for(const Graph& graph, SplitMix64& random) {
  std::vector<SiteStatistics> stats;
  for (size_t i = 0; i < graph.sites.size(); ++i) {
    stats.push_back(statistics_of(random_values(random, 100)));
  }
  return stats;
}

TEST(Ranges, EveryActivationGetsAScaleAndTiesAreExact) {
  Graph graph = build_graph(small_config(), {});
  SplitMix64 random(5);
  assign_ranges(graph, statistics_for(graph, random));
  int ties = 0;
  for (const Site& site : graph.sites) {
    if (site.role == Role::kWeight || site.role == Role::kTable) continue;
    if (site.name == "embed_tokens.out") continue;  // its table's, which freeze chooses
    ASSERT_EQ(site.qparams.scale.size(), 1u) << site.name;
    if (site.source != RangeSource::kTied) continue;
    const Site& owner = graph.site(site.tied_to);
    const int change = bitwidth(owner.qparams.dtype) - bitwidth(site.qparams.dtype);
    const auto factor = static_cast<float>(std::ldexp(1.0, change));
    EXPECT_EQ(site.qparams.scale[0], owner.qparams.scale[0] * factor) << site.name;
    ++ties;
  }
  EXPECT_GE(ties, 10);
}

TEST(Ranges, FourBitInputsOwnTheScaleOfTheirSource) {
  Recipe recipe;
  recipe.rules.push_back({.match = "*.o_proj.in", .bitwidth = 4});
  Graph graph = build_graph(small_config(), recipe);
  SplitMix64 random(9);
  std::vector<SiteStatistics> stats = statistics_for(graph, random);
  const int wide = graph.find_site("layers.0.self_attn.context.out");
  const int narrow = graph.find_site("layers.0.self_attn.o_proj.in");
  stats[wide] = statistics_of({-1.0f, 2.0f});
  stats[narrow] = {};
  assign_ranges(graph, stats);
  EXPECT_EQ(graph.site(narrow).qparams.dtype, DType::kS4);
  EXPECT_EQ(graph.site(narrow).qparams.scale[0], 2.0f / 7);
  EXPECT_EQ(graph.site(wide).qparams.scale[0], 2.0f / 7 / 4096);
}

TEST(Ranges, AGroupIsSeenAsOne) {
  Graph graph = build_graph(small_config(), {});
  SplitMix64 random(6);
  std::vector<SiteStatistics> stats = statistics_for(graph, random);
  const int wide = graph.find_site("layers.0.self_attn.context.out");
  const int narrow = graph.find_site("layers.0.self_attn.o_proj.in");
  stats[wide] = statistics_of({-1.0f, 2.0f});
  stats[narrow] = statistics_of({-4.0f, 1.0f});
  assign_ranges(graph, stats);
  EXPECT_EQ(graph.site(narrow).qparams.scale[0], 4.0f / 127);
  // One member's statistics are enough.
  stats[narrow] = {};
  assign_ranges(graph, stats);
  EXPECT_EQ(graph.site(narrow).qparams.scale[0], 2.0f / 127);
}

TEST(Ranges, FixedAndMaskedSites) {
  Graph graph = build_graph(small_config(), {});
  SplitMix64 random(7);
  std::vector<SiteStatistics> stats = statistics_for(graph, random);
  stats[graph.find_site("layers.0.self_attn.scores.out")] = statistics_of({-3.0f, 7.0f});
  assign_ranges(graph, stats);
  const QParams& mask = graph.site(graph.find_site("layers.0.self_attn.mask.out")).qparams;
  EXPECT_EQ(mask.dtype, DType::kS16);
  EXPECT_FLOAT_EQ(mask.scale[0], 30.0f / 65535);
  EXPECT_NEAR(mask.scale[0] * (-32768 - mask.zero_point[0]), -23.0, 0.001);
  const QParams& p = graph.site(graph.find_site("layers.0.self_attn.softmax.out")).qparams;
  EXPECT_EQ(p.dtype, DType::kU16);
  EXPECT_EQ(p.scale[0], static_cast<float>(1.0 / 65535));
  EXPECT_EQ(p.zero_point[0], 0);
  EXPECT_EQ(graph.site(graph.find_site("rope.cos")).qparams.scale[0],
            static_cast<float>(1.0 / 32767));
}

TEST(Ranges, ASiteWithoutStatisticsStopsTheBuild) {
  Graph graph = build_graph(small_config(), {});
  SplitMix64 random(8);
  std::vector<SiteStatistics> stats = statistics_for(graph, random);
  stats[graph.find_site("layers.0.mlp.silu.out")] = {};
  EXPECT_THAT(error_of([&] { assign_ranges(graph, stats); }),
              HasSubstr("'layers.0.mlp.silu.out' has no statistics"));
  stats[graph.find_site("layers.0.mlp.silu.out")] = statistics_of({1.0f, NAN});
  EXPECT_THAT(error_of([&] { assign_ranges(graph, stats); }),
              HasSubstr("'layers.0.mlp.silu.out' holds NaN or infinity"));
}

}  // namespace
}  // namespace qnpu
