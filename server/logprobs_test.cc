#include "server/logprobs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace qnpu::server {
namespace {

TEST(LogSoftmax, EqualsItsDefinition) {
  std::mt19937 random(3);
  for (const double scale : {1e-4, 0.0023, 0.05, 1.0}) {
    const LogSoftmax softmax(scale);
    std::vector<int16_t> row(300);
    for (int16_t& logit : row) logit = static_cast<int16_t>(random());
    row[7] = 32767;
    row[8] = -32768;
    long double sum = 0;  // less the largest, or it would overflow
    for (const int16_t logit : row)
      sum += std::exp(scale * static_cast<long double>(logit - 32767));
    for (size_t i = 0; i < row.size(); ++i) {
      const long double wanted = scale * static_cast<long double>(row[i] - 32767) - std::log(sum);
      EXPECT_NEAR(softmax.logprob(row[i], softmax.log_sum(row)), static_cast<double>(wanted),
                  1e-9 * (1 + std::abs(static_cast<double>(wanted))));
    }
  }
}

TEST(LogSoftmax, TheLikeliestAndTheTokenItself) {
  const LogSoftmax softmax(0.1);
  const std::vector<int16_t> row = {5, 9, -3, 9, 0};
  const auto top_ids = [&](int32_t token, int top) {
    TokenOutput output{token};
    softmax.describe(row, top, output);
    EXPECT_DOUBLE_EQ(output.logprob.value(),
                     softmax.logprob(row[static_cast<size_t>(token)], softmax.log_sum(row)));
    std::vector<int32_t> ids;
    for (const TokenChance& chance : output.top) ids.push_back(chance.token);
    return ids;
  };
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(top_ids(4, 0), Ids());
  EXPECT_EQ(top_ids(1, 1), Ids({1}));
  EXPECT_EQ(top_ids(3, 1), Ids({1, 3}));
  EXPECT_EQ(top_ids(2, 3), Ids({1, 3, 0, 2}));
  EXPECT_EQ(top_ids(2, 20), Ids({1, 3, 0, 4, 2}));
}

}  // namespace
}  // namespace qnpu::server
