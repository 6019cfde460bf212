#include "quant/learn/sequences.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "base/status.h"

namespace qnpu {
namespace {

// Token t of text number n is 1000 n + t.
Window text(int number, int tokens) {
  Window window(static_cast<size_t>(tokens));
  std::iota(window.begin(), window.end(), 1000 * number);
  return window;
}

TEST(Sequences, TextsTakeTurnsHoweverLongTheyAre) {
  Sequences sequences({text(0, 400), text(1, 20), text(2, 9), text(3, 40)}, 10, 5);
  std::vector<std::multiset<int64_t>> begins(4);
  for (int i = 0; i < 12; ++i) {
    const torch::Tensor row = sequences.next(1).squeeze(0);
    const auto first = row[0].item<int64_t>();
    EXPECT_TRUE(torch::equal(row, torch::arange(first, first + 10)));
    EXPECT_EQ(first / 1000, (std::vector<int64_t>{0, 1, 3})[i % 3]);  // the third is too short
    begins[first / 1000].insert(first % 1000);
  }
  EXPECT_EQ(std::set<int64_t>(begins[0].begin(), begins[0].end()).size(), 4u);
  EXPECT_EQ(begins[1], (std::multiset<int64_t>{0, 0, 10, 10}));  // two rounds
  EXPECT_EQ(begins[3], (std::multiset<int64_t>{0, 10, 20, 30}));
}

TEST(Sequences, SkippedIsAsRead) {
  const std::vector<Window> texts = {text(0, 70), text(1, 30)};
  Sequences read(texts, 10, 3), skipped(texts, 10, 3), other(texts, 10, 4);
  read.next(13);
  skipped.skip(13);
  other.skip(13);
  const torch::Tensor wanted = read.next(8);
  EXPECT_TRUE(torch::equal(skipped.next(8), wanted));
  EXPECT_FALSE(torch::equal(other.next(8), wanted));
}

TEST(Sequences, TextThatIsTooShortIsAnError) {
  EXPECT_THAT(
      [] {
        Sequences({text(0, 9), text(1, 5)}, 10, 0);
      },
      testing::ThrowsMessage<Error>(testing::HasSubstr("no window of 10 tokens")));
}

}  // namespace
}  // namespace qnpu
