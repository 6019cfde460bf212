#include "eval/choices.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace qnpu {
namespace {

TEST(Choices, LogLikelihoodEqualsBruteForce) {
  std::mt19937 generator(5);
  std::normal_distribution<float> normal(0.0f, 6.0f);
  for (size_t vocab : {2, 5, 513, 4099}) {
    const std::vector<int32_t> targets = {0, static_cast<int32_t>(vocab - 1),
                                          static_cast<int32_t>(vocab / 2)};
    std::vector<float> rows(targets.size() * vocab);
    for (float& x : rows) x = normal(generator);
    long double truth = 0;
    for (size_t i = 0; i < targets.size(); ++i) {
      long double sum = 0;
      for (size_t v = 0; v < vocab; ++v) {
        sum += std::exp(static_cast<long double>(rows[i * vocab + v]));
      }
      truth += rows[i * vocab + targets[i]] - std::log(sum);
    }
    EXPECT_NEAR(log_likelihood(rows, targets), static_cast<double>(truth), 1e-6) << vocab;
  }
  EXPECT_EQ(log_likelihood({}, {}), 0.0);
}

TEST(Choices, LikeliestIsTheFirstOfEquals) {
  EXPECT_EQ(likeliest(std::vector<double>{-3.0}), 0);
  EXPECT_EQ(likeliest(std::vector<double>{-3.0, -1.0, -1.0, -2.0}), 1);
}

// The standard error of a mean is that of the sample, n - 1 in the denominator of its variance.
TEST(Choices, StandardErrorIsThatOfTheSample) {
  for (int items : {2, 7, 500}) {
    for (int right : {0, 1, items / 2, items}) {
      const Accuracy accuracy{right, items};
      const double mean = static_cast<double>(right) / items;
      double squares = 0;
      for (int i = 0; i < items; ++i) squares += std::pow((i < right ? 1.0 : 0.0) - mean, 2);
      EXPECT_NEAR(accuracy.share(), mean, 1e-15);
      EXPECT_NEAR(accuracy.standard_error(), std::sqrt(squares / (items - 1) / items), 1e-14);
    }
  }
  EXPECT_TRUE(std::isnan((Accuracy{1, 1}).standard_error()));
}

TEST(Choices, PlainAndNormalisedMayDiffer) {
  ChoiceAccuracy sum;
  sum.add(std::vector<double>{-10.0, -12.0}, std::vector<int64_t>{5, 60}, 1);  // 2.0, 0.2 a byte
  EXPECT_EQ(sum.plain.right, 0);
  EXPECT_EQ(sum.normalised.right, 1);
  sum.add(std::vector<double>{-9.0, -8.0, -30.0}, std::vector<int64_t>{3, 2, 10}, 1);
  EXPECT_EQ(sum.plain.right, 1);
  EXPECT_EQ(sum.normalised.right, 1);  // both 3 a byte for choices 0 and 2; choice 1 has 4
  EXPECT_EQ(sum.plain.items, 2);
  EXPECT_EQ(sum.normalised.items, 2);
}

}  // namespace
}  // namespace qnpu
