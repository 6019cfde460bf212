#include "apps/qnpu/learning.h"

#include <gtest/gtest.h>

#include <cmath>

#include "apps/qnpu/task_evaluation.h"
#include "apps/qnpu/task_testing.h"
#include "io/safetensors.h"

namespace qnpu {
namespace {

const std::filesystem::path kModel =
    std::filesystem::path(QNPU_SOURCE_DIR) / "testdata/models/tiny-llama";

// The tokens whose logits transformers computed, as choices of three lengths after a query of
// `context`.
TEST(FloatSource, LikelihoodsAreThoseOfTransformersLogits) {
  const TensorFile golden = TensorFile::open(kModel / "golden.safetensors");
  const auto tokens = golden.at("tokens").as<int32_t>();
  const auto logits = golden.at("logits").as<float>();
  const size_t vocab = logits.size() / tokens.size();
  const LogitsSource source = float_source(kModel, "fp32", 1);
  for (const int context : {1, 7}) {
    TaskItem item;
    item.context = context;
    for (const size_t length : {size_t{8}, tokens.size(), tokens.size() / 2}) {
      item.sequences.emplace_back(tokens.begin(), tokens.begin() + length);
    }
    const std::vector<double> sums = choice_log_likelihoods(item, source);
    for (size_t i = 0; i < sums.size(); ++i) {
      const size_t scored = item.sequences[i].size() - context;
      const double truth = log_likelihood(logits.subspan((context - 1) * vocab, scored * vocab),
                                          tokens.subspan(context, scored));
      EXPECT_LT(truth, -1.0);
      EXPECT_NEAR(sums[i], truth, 1e-3 * scored) << context << " " << i;
    }
  }
}

// Choices that begin like the query or unlike it; the second item's have nothing in common.
TEST(FloatSource, SharingTheQueryChangesNothingButRounding) {
  const LogitsSource source = float_source(kModel, "fp32", 1);
  EXPECT_EQ(source.context, load_config(kModel / "config.json").max_positions);
  std::vector<TaskItem> items(2);
  items[0] = {0, {{5, 6, 7, 11}, {5, 8}, {5, 8, 9}}, 1, {}, 0};
  items[1] = {0, {{5, 6, 7, 9}, {8, 6, 7}}, 2, {}, 0};
  for (const TaskItem& item : items) {
    const std::vector<double> sums = choice_log_likelihoods(item, source);
    const std::vector<double> truth = log_likelihoods_from_scratch(item, source);
    for (size_t i = 0; i < truth.size(); ++i) {
      EXPECT_LT(truth[i], -1.0);
      EXPECT_NEAR(sums[i], truth[i], 1e-5 * -truth[i]) << item.context << " " << i;
    }
  }
}

}  // namespace
}  // namespace qnpu
