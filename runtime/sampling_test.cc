#include "runtime/sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "io/test_folder.h"

namespace qnpu {
namespace {

using Logits = std::vector<int16_t>;

std::map<int, int> count_draws(const SamplingOptions& options, const Logits& logits, double scale,
                               int draws) {
  Sampler sampler(options);
  std::map<int, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[sampler.sample(logits, scale)];
  return counts;
}

TEST(Sampling, GreedyTakesTheLargestAndOfEqualOnesTheLowestId) {
  EXPECT_EQ(greedy_token(Logits{-5, 3, 7, 7, 2}), 2);
  EXPECT_EQ(greedy_token(Logits{-32768, -32768}), 0);
  EXPECT_EQ(Sampler({}).sample(Logits{1, 9, 9}, 0.1), 1);
}

TEST(Sampling, SameSeedSameDraws) {
  const Logits logits = {100, 90, 80, 110, 70, 95};
  Sampler a({.temperature = 1.0, .seed = 5});
  Sampler b({.temperature = 1.0, .seed = 5});
  Sampler c({.temperature = 1.0, .seed = 6});
  int different = 0;
  for (int i = 0; i < 200; ++i) {
    const int token = a.sample(logits, 0.05);
    EXPECT_EQ(token, b.sample(logits, 0.05));
    different += token != c.sample(logits, 0.05);
  }
  EXPECT_GT(different, 50);
}

// Pinned: a change of generator, mapping or order would change everybody's results.
TEST(Sampling, FirstDrawsOfASeedStay) {
  const Logits logits(1000, 0);
  Sampler sampler({.temperature = 1.0, .seed = 42});
  std::vector<int> tokens;
  for (int i = 0; i < 4; ++i) tokens.push_back(sampler.sample(logits, 1.0));
  EXPECT_THAT(tokens, ::testing::ElementsAre(755, 639, 752, 136));
}

// Chi-square against exp(logit * scale / temperature); 7 degrees of freedom, 0.1 % at 24.3.
TEST(Sampling, DrawsFollowTheDistribution) {
  const Logits logits = {120, 100, 60, 110, 90, 80, 115, 40};
  const double scale = 0.03;
  const double temperature = 0.7;
  const int draws = 20000;
  const auto counts = count_draws({.temperature = temperature, .seed = 1}, logits, scale, draws);
  double total = 0.0;
  for (const int16_t l : logits) total += std::exp(l * scale / temperature);
  double chi_square = 0.0;
  for (int i = 0; i < 8; ++i) {
    const double expected = draws * std::exp(logits[i] * scale / temperature) / total;
    const double difference = (counts.count(i) ? counts.at(i) : 0) - expected;
    chi_square += difference * difference / expected;
  }
  EXPECT_LT(chi_square, 24.3);
}

TEST(Sampling, TopKKeepsTheLikeliest) {
  const Logits logits = {10, 50, 40, 50, 30, 40};
  const auto counts = count_draws({.temperature = 5.0, .top_k = 3, .seed = 2}, logits, 0.1, 3000);
  // Of the two equal third places, the lower id.
  EXPECT_THAT(counts, ::testing::UnorderedElementsAre(::testing::Key(1), ::testing::Key(3),
                                                      ::testing::Key(2)));
  EXPECT_EQ(count_draws({.temperature = 9.0, .top_k = 1, .seed = 3}, logits, 0.1, 100).size(), 1u);
}

// Probabilities 0.5, 0.25, 0.125, ...: 0.8 needs three tokens, 0.75 two.
TEST(Sampling, TopPKeepsTheFewestThatHoldIt) {
  const Logits logits = {0, -3, -1, -2, -4, -5};
  const double scale = std::log(2.0);
  const auto keys = [&](double p) {
    std::vector<int> tokens;
    for (const auto& [token, count] :
         count_draws({.temperature = 1.0, .top_p = p, .seed = 4}, logits, scale, 3000)) {
      tokens.push_back(token);
    }
    return tokens;
  };
  EXPECT_THAT(keys(0.8), ::testing::ElementsAre(0, 2, 3));
  EXPECT_THAT(keys(0.74), ::testing::ElementsAre(0, 2));
  EXPECT_THAT(keys(0.01), ::testing::ElementsAre(0));
  EXPECT_EQ(keys(1.0).size(), 6u);
}

// A flat distribution: the nucleus is longer than the first heads that are sorted.
TEST(Sampling, TopPOfAFlatDistribution) {
  const Logits logits(2000, 7);
  const auto counts = count_draws({.temperature = 1.0, .top_p = 0.5, .seed = 5}, logits, 0.1, 3000);
  EXPECT_LE(counts.rbegin()->first, 1000);
  EXPECT_GT(counts.rbegin()->first, 980);
}

TEST(Sampling, OptionsOutOfRange) {
  using ::testing::HasSubstr;
  const auto error = [](SamplingOptions options) {
    return error_of([&] { Sampler sampler(options); });
  };
  EXPECT_THAT(error({.temperature = -1.0}), HasSubstr("temperature"));
  EXPECT_THAT(error({.temperature = NAN}), HasSubstr("temperature"));
  EXPECT_THAT(error({.top_k = -1}), HasSubstr("top-k"));
  EXPECT_THAT(error({.top_p = 0.0}), HasSubstr("top-p"));
  EXPECT_THAT(error({.top_p = 1.5}), HasSubstr("top-p"));
}

}  // namespace
}  // namespace qnpu
