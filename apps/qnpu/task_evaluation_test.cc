#include "apps/qnpu/task_evaluation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "apps/qnpu/task_testing.h"
#include "io/test_folder.h"
#include "runtime/testing/random_artifact.h"

namespace qnpu {
namespace {

constexpr int kPositions = 320;

// Sequences of random tokens that begin alike: with `shared` tokens.
TaskItem random_item(int context, int shared, const std::vector<int>& lengths, int seed) {
  std::mt19937 generator(seed);
  std::uniform_int_distribution<int32_t> token(0, 95);
  std::vector<int32_t> begin(shared);
  for (int32_t& x : begin) x = token(generator);
  TaskItem item;
  item.context = context;
  for (const int length : lengths) {
    std::vector<int32_t> tokens = begin;
    tokens.push_back(static_cast<int32_t>(item.sequences.size()));
    while (tokens.size() < length) tokens.push_back(token(generator));
    item.sequences.push_back(tokens);
    item.characters.push_back(length);
  }
  return item;
}

// As long as a session takes at once, longer, one token; a query that is part of what is shared,
// all of it, or more than that.
std::vector<TaskItem> some_items() {
  return {random_item(5, 5, {9, 6, 20}, 1),       random_item(1, 1, {2, 3}, 2),
          random_item(3, 6, {9, 12}, 3),          random_item(6, 4, {9, 12, 7}, 4),
          random_item(2, 0, {9, 4}, 5),           random_item(150, 150, {151, 279, 278, 300}, 6),
          random_item(140, 2, {141, 160, 300}, 7)};
}

class TaskEvaluationTest : public ::testing::TestWithParam<int> {  // length of the prefix
 protected:
  static LogitsSource source(const TestFolder& folder) {
    testing::make_random_artifact(testing::tiny_config("llama"), Recipe{}, 3, folder.path(),
                                  kPositions + GetParam(), GetParam());
    return artifact_source(load_artifact(folder.path()), kPositions + 100, 1);
  }

  TestFolder folder_;
  LogitsSource source_ = source(folder_);
  Progress progress_;
};

TEST_P(TaskEvaluationTest, SharingTheQueryChangesNothing) {
  for (const TaskItem& item : some_items()) {
    const std::vector<double> sums = choice_log_likelihoods(item, source_);
    const std::vector<double> truth = log_likelihoods_from_scratch(item, source_);
    ASSERT_EQ(sums.size(), item.sequences.size());
    for (size_t i = 0; i < sums.size(); ++i) {
      EXPECT_LT(truth[i], 0);
      EXPECT_NEAR(sums[i], truth[i], 4e-7 * item.sequences[i].size()) << item.context << " " << i;
    }
  }
}

TEST_P(TaskEvaluationTest, TheQueryIsComputedOnce) {
  int tokens_run = 0, rows = 0;
  LogitsSource counting = source_;
  counting.resume = [&](std::span<const int32_t> tokens, int keep, bool all_rows) {
    tokens_run += static_cast<int>(tokens.size()) - keep;
    rows += all_rows ? static_cast<int>(tokens.size()) - keep : 1;
    return source_.resume(tokens, keep, all_rows);
  };
  choice_log_likelihoods(random_item(40, 40, {45, 41, 43}, 8), counting);
  EXPECT_EQ(tokens_run, 40 + 4 + 0 + 2);
  EXPECT_EQ(rows, 1 + 4 + 0 + 2);
}

TEST_P(TaskEvaluationTest, AccuracyCountsTheLikeliestChoices) {
  Task task{"quiz.jsonl", "quiz", some_items()};
  ChoiceAccuracy expected;
  for (size_t i = 0; i < task.items.size(); ++i) {
    TaskItem& item = task.items[i];
    const auto truth = log_likelihoods_from_scratch(item, source_);
    item.gold = i % 3 == 2 ? 0 : likeliest(truth);
    expected.add(truth, item.characters, item.gold);
  }
  const ChoiceAccuracy accuracy = evaluate_task(task, source_, progress_);
  EXPECT_GT(expected.plain.right, 3);
  EXPECT_EQ(accuracy.plain.items, task.items.size());
  EXPECT_EQ(accuracy.plain.right, expected.plain.right);
  EXPECT_EQ(accuracy.normalised.right, expected.normalised.right);
}

TEST_P(TaskEvaluationTest, WhatCannotBeScoredIsRefused) {
  Task task{"quiz.jsonl", "quiz", {random_item(5, 5, {kPositions + 1}, 1)}};
  EXPECT_EQ(evaluate_task(task, source_, progress_).plain.items, 1);  // the last token is not fed
  task.items.push_back(random_item(5, 5, {9, kPositions + 2}, 1));
  task.items.back().line = 7;
  EXPECT_THAT(error_of([&] { evaluate_task(task, source_, progress_); }),
              ::testing::AllOf(::testing::HasSubstr("quiz.jsonl, line 7"),
                               ::testing::HasSubstr(std::to_string(kPositions))));
  task.items.pop_back();
  LogitsSource broken = source_;
  const std::vector<float> nan(kLogitsRows * 96, std::numeric_limits<float>::quiet_NaN());
  broken.resume = [&](std::span<const int32_t> tokens, int keep, bool all_rows) {
    return std::span(nan).first((all_rows ? tokens.size() - keep : 1) * 96);
  };
  EXPECT_THAT(error_of([&] { evaluate_task(task, broken, progress_); }),
              ::testing::HasSubstr("not finite"));
}

INSTANTIATE_TEST_SUITE_P(Prefixes, TaskEvaluationTest, ::testing::Values(0, 3));

}  // namespace
}  // namespace qnpu
