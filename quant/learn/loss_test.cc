#include "quant/learn/loss.h"

#include <gtest/gtest.h>

#include "quant/test_models.h"

namespace qnpu {
namespace {

using torch::Tensor;

// More rows than a chunk has.
constexpr int64_t kRows = 300, kHidden = 10, kVocabulary = 37;

class VocabularyLoss : public testing::TestWithParam<torch::ScalarType> {
 protected:
  void SetUp() override {
    torch::manual_seed(3);
    head_ = make_head();
    teacher_head_ = make_head();
    hidden_ = torch::randn({kRows, kHidden}, GetParam());
    teacher_hidden_ = torch::randn({kRows, kHidden}, GetParam());
  }
  LinearGroup make_head() {
    LinearGroup head;
    head.codes = torch::randn({kVocabulary, kHidden}, GetParam());
    head.scale = torch::rand({kVocabulary}, GetParam()) + 0.5;
    return head;
  }
  static Tensor logits(const Tensor& hidden, const LinearGroup& head) {
    return hidden.matmul(head.codes.t()) * head.scale;
  }
  void compare(const LossResult& ours, const Tensor& loss, const Tensor& x, double factor) {
    const double tolerance = GetParam() == torch::kFloat64 ? 1e-12 : 1e-5;
    EXPECT_NEAR(ours.sum, loss.item<double>(), tolerance * std::abs(loss.item<double>()));
    const Tensor gradient = torch::autograd::grad({loss * factor}, {x})[0];
    EXPECT_LT(relative_difference(ours.dhidden, gradient), tolerance);
  }

  LinearGroup head_, teacher_head_;
  Tensor hidden_, teacher_hidden_;
};

TEST_P(VocabularyLoss, CrossEntropyIsTorchs) {
  Tensor targets = torch::randint(kVocabulary, {kRows});
  targets[0] = targets[299] = -1;
  const LossResult ours = cross_entropy_loss(hidden_, head_, targets, 0.3);
  EXPECT_EQ(ours.rows, kRows - 2);
  const Tensor x = hidden_.clone().requires_grad_(true);
  const Tensor loss =
      torch::cross_entropy_loss(logits(x, head_), targets, {}, torch::Reduction::Sum, -1);
  compare(ours, loss, x, 0.3);
}

TEST_P(VocabularyLoss, KlIsTorchs) {
  const LossResult ours = kl_loss(hidden_, head_, teacher_hidden_, teacher_head_, 0.3);
  const Tensor x = hidden_.clone().requires_grad_(true);
  const Tensor p = logits(teacher_hidden_, teacher_head_).softmax(1);
  const Tensor loss = torch::kl_div(logits(x, head_).log_softmax(1), p, torch::Reduction::Sum);
  compare(ours, loss, x, 0.3);
}

TEST_P(VocabularyLoss, HiddenIsTheMeanSquareOfChannels) {
  const LossResult ours = hidden_loss(hidden_, teacher_hidden_, 0.3);
  EXPECT_EQ(ours.rows, kRows);
  const Tensor x = hidden_.clone().requires_grad_(true);
  const Tensor loss = torch::mse_loss(x, teacher_hidden_, torch::Reduction::Sum) / kHidden;
  compare(ours, loss, x, 0.3);
  EXPECT_FALSE(hidden_loss(hidden_, teacher_hidden_, 0.0).dhidden.defined());
}

TEST_P(VocabularyLoss, TheSameModelHasNone) {
  const LossResult same = kl_loss(hidden_, head_, hidden_, head_, 0.0);
  EXPECT_LT(std::abs(same.sum), 1e-4);
  EXPECT_FALSE(same.dhidden.defined());
}

TEST(NextTokens, EndWithNone) {
  const Tensor tokens = torch::tensor({{1, 2, 3}, {4, 5, 6}}, torch::kInt64);
  EXPECT_TRUE(
      torch::equal(next_tokens(tokens), torch::tensor({2, 3, -1, 5, 6, -1}, torch::kInt64)));
}

INSTANTIATE_TEST_SUITE_P(Types, VocabularyLoss, testing::Values(torch::kFloat32, torch::kFloat64),
                         [](const auto& info) {
                           return info.param == torch::kFloat32 ? "Fp32" : "Fp64";
                         });

}  // namespace
}  // namespace qnpu
