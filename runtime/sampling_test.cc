#include "runtime/sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <utility>

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

// What the options mean, word by word: weights of all tokens, sorted, cut, and gone through.
int sampled_by_definition(const SamplingOptions& options, const Logits& logits, double scale,
                          std::mt19937_64& random) {
  std::vector<std::pair<int, double>> tokens;  // id, weight
  const int largest = *std::max_element(logits.begin(), logits.end());
  for (size_t i = 0; i < logits.size(); ++i) {
    const double weight = std::exp((logits[i] - largest) * (scale / options.temperature));
    if (weight >= 0x1p-60) tokens.emplace_back(i, weight);
  }
  const auto sum = [&] {
    double total = 0.0;
    for (const auto& [id, weight] : tokens) total += weight;
    return total;
  };
  double total = sum();
  const auto k = static_cast<size_t>(options.top_k);
  const bool cuts = k != 0 && k < tokens.size();
  if (cuts || options.top_p < 1.0) {
    std::stable_sort(tokens.begin(), tokens.end(), [&](const auto& a, const auto& b) {
      return logits[static_cast<size_t>(a.first)] > logits[static_cast<size_t>(b.first)];
    });
  }
  if (cuts) {
    tokens.resize(k);
    total = sum();
  }
  double held = 0.0;
  for (size_t i = 0; options.top_p < 1.0 && i < tokens.size(); ++i) {
    held += tokens[i].second;
    if (held >= options.top_p * total) tokens.resize(i + 1);
  }
  double left =
      static_cast<double>(random() >> 11) * 0x1p-53 * (options.top_p < 1.0 ? held : total);
  for (const auto& [id, weight] : tokens) {
    if ((left -= weight) < 0.0) return id;
  }
  return tokens.back().first;
}

TEST(Sampling, TokensAreThoseOfTheDefinition) {
  std::mt19937_64 draw(11);
  for (const double spread : {3.0, 400.0, 9000.0}) {
    for (const SamplingOptions& options :
         std::vector<SamplingOptions>{{.temperature = 1.0},
                                      {.temperature = 0.3, .top_p = 0.9},
                                      {.temperature = 2.0, .top_p = 0.99},
                                      {.temperature = 1.0, .top_k = 40},
                                      {.temperature = 1.5, .top_k = 700, .top_p = 0.5},
                                      {.temperature = 1.0, .top_k = 5000},
                                      {.temperature = 100.0, .top_p = 0.999}}) {
      Sampler sampler(options);
      std::mt19937_64 random(options.seed);
      std::normal_distribution<double> normal(0.0, spread);
      for (int i = 0; i < 20; ++i) {
        Logits logits(3000);
        for (int16_t& x : logits) x = static_cast<int16_t>(std::clamp(normal(draw), -3e4, 3e4));
        const double scale = i < 10 ? 0.002 : 0.02;
        EXPECT_EQ(sampler.sample(logits, scale),
                  sampled_by_definition(options, logits, scale, random));
      }
    }
  }
}

// As if each had the thread for itself.
TEST(Sampling, SamplersTakeTurns) {
  const Logits logits = {100, 90, 80, 110, 70, 95};
  const SamplingOptions first = {.temperature = 1.0, .top_p = 0.9, .seed = 1};
  const SamplingOptions second = {.temperature = 3.0, .seed = 2};
  Sampler a(first), b(second), a_alone(first), b_alone(second);
  std::vector<int> together, alone;
  for (int i = 0; i < 50; ++i) {
    together.push_back(a.sample(logits, 0.05));
    together.push_back(b.sample(logits, 0.05));
  }
  std::vector<int> of_b;
  for (int i = 0; i < 50; ++i) alone.push_back(a_alone.sample(logits, 0.05));
  for (int i = 0; i < 50; ++i) of_b.push_back(b_alone.sample(logits, 0.05));
  for (size_t i = 0; i < 50; ++i) {
    EXPECT_EQ(together[2 * i], alone[i]);
    EXPECT_EQ(together[2 * i + 1], of_b[i]);
  }
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
