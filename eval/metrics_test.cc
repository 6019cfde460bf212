#include "eval/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace qnpu {
namespace {

std::vector<float> random_row(size_t n, float spread, int seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> row(n);
  for (float& x : row) x = normal(generator);
  return row;
}

std::vector<long double> log_softmax(const std::vector<float>& row) {
  long double sum = 0;
  for (float x : row) sum += std::exp(static_cast<long double>(x));
  std::vector<long double> result;
  for (float x : row) result.push_back(x - std::log(sum));
  return result;
}

TEST(Metrics, NllOfEqualLogitsIsLogOfTheirNumber) {
  for (size_t n : {1, 2, 15, 16, 17, 1000}) {
    const std::vector<float> row(n, 3.25f);
    EXPECT_NEAR(negative_log_likelihood(row, 0), std::log(static_cast<double>(n)), 1e-12) << n;
  }
}

TEST(Metrics, NllEqualsBruteForce) {
  for (float spread : {0.01f, 1.0f, 5.0f, 30.0f}) {
    for (size_t n : {7, 33, 4096, 50001}) {
      const std::vector<float> row = random_row(n, spread, static_cast<int>(n));
      const std::vector<long double> truth = log_softmax(row);
      for (size_t target : {size_t{0}, n / 2, n - 1}) {
        EXPECT_NEAR(negative_log_likelihood(row, static_cast<int>(target)),
                    static_cast<double>(-truth[target]), 3e-7)
            << spread << " " << n;
      }
    }
  }
}

TEST(Metrics, NllSurvivesExtremeLogits) {
  const std::vector<float> row = {-1e30f, 1000.0f, -3e38f, 0.0f};
  EXPECT_NEAR(negative_log_likelihood(row, 1), 0.0, 1e-12);
  EXPECT_NEAR(negative_log_likelihood(row, 3), 1000.0, 1e-9);
  const std::vector<float> broken = {0.0f, std::numeric_limits<float>::quiet_NaN(), 1.0f};
  EXPECT_TRUE(std::isnan(negative_log_likelihood(broken, 0)));
}

TEST(Metrics, KlEqualsBruteForce) {
  for (float noise : {0.01f, 0.1f, 2.0f}) {
    const std::vector<float> a = random_row(10007, 4.0f, 1);
    std::vector<float> b = random_row(10007, noise, 2);
    for (size_t i = 0; i < a.size(); ++i) b[i] += a[i];
    const std::vector<long double> log_a = log_softmax(a);
    const std::vector<long double> log_b = log_softmax(b);
    long double truth = 0;
    for (size_t i = 0; i < a.size(); ++i) truth += std::exp(log_a[i]) * (log_a[i] - log_b[i]);
    EXPECT_NEAR(kl_divergence(a, b), static_cast<double>(truth), 3e-7 + 1e-6 * truth) << noise;
  }
}

TEST(Metrics, KlOfEqualsIsZeroAndOfTwoCoinsIsKnown) {
  const std::vector<float> a = random_row(49152, 5.0f, 3);
  EXPECT_EQ(kl_divergence(a, a), 0.0);
  std::vector<float> shifted = a;
  for (float& x : shifted) x += 7.0f;
  EXPECT_NEAR(kl_divergence(a, shifted), 0.0, 2e-6);  // rounding of x + 7 itself
  const std::vector<float> fair = {0.0f, 0.0f};
  const std::vector<float> biased = {std::log(3.0f), 0.0f};
  EXPECT_NEAR(kl_divergence(fair, biased), 0.5 * std::log(0.5 / 0.75) + 0.5 * std::log(2.0), 1e-7);
}

TEST(Metrics, Top1IsTheFirstOfEquals) {
  EXPECT_EQ(top1(std::vector<float>{1.0f}), 0);
  EXPECT_EQ(top1(std::vector<float>{-2.0f, -1.0f, -1.0f}), 1);
  std::vector<float> row = random_row(5000, 1.0f, 4);
  row[4999] = 100.0f;
  EXPECT_EQ(top1(row), 4999);
}

TEST(Metrics, SumsGivePerplexityBitsAndAgreement) {
  LikelihoodSum likelihood;
  const std::vector<float> uniform(256, 0.0f);
  for (int i = 0; i < 10; ++i) likelihood.add(uniform, i);
  EXPECT_EQ(likelihood.tokens, 10);
  EXPECT_NEAR(likelihood.perplexity(), 256.0, 1e-9);
  EXPECT_NEAR(likelihood.bits_per_byte(20), 4.0, 1e-12);  // 80 bits over 20 bytes

  DivergenceSum divergence;
  divergence.add(std::vector<float>{1.0f, 0.0f}, std::vector<float>{1.0f, 0.0f});
  divergence.add(std::vector<float>{1.0f, 0.0f}, std::vector<float>{0.0f, 1.0f});
  EXPECT_EQ(divergence.tokens, 2);
  EXPECT_EQ(divergence.top1_agreement(), 0.5);
  const double p = 1.0 / (1.0 + std::exp(-1.0));
  EXPECT_NEAR(divergence.kl_divergence(), (2 * p - 1) / 2, 1e-7);
}

}  // namespace
}  // namespace qnpu
