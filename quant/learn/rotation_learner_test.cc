#include "quant/learn/rotation_learner.h"

#include <gtest/gtest.h>

#include "quant/learn/exact_model_testing.h"
#include "quant/learn/pass.h"

namespace qnpu {
namespace {

using torch::Tensor;

class RotationsOfEachModel : public ExactModel {
 protected:
  void SetUp() override {
    ExactModel::SetUp();
    start_ = make_rotations(model_.config, Rotation::kRandom, Rotation::kRandom, 1);
  }

  // Cross entropy of the network under rotations, which need not be orthogonal here.
  double loss(const Rotations& rotations, Rotations* gradient = nullptr) {
    Network network(model_, graph_, exact());
    RotationLearner learner(model_, graph_, network, rotations);
    for (LinearGroup& group : network.groups()) {
      group.codes = learner.weights(group);
      if (gradient != nullptr) group.codes_grad = torch::zeros_like(group.codes);
    }
    Pass pass(network, network, Loss::kCrossEntropy);
    if (gradient == nullptr) {
      const torch::NoGradGuard no_grad;
      return pass.forward(tokens_).sum;
    }
    const double sum = pass.backward(tokens_, 1.0).sum;
    for (LinearGroup& group : network.groups()) learner.pull_back(group, group.codes_grad);
    gradient->r1 = network.r1.grad();
    for (const Tensor& r2 : network.r2) gradient->r2.push_back(r2.grad());
    return sum;
  }

  // d(loss) when one matrix moves along a direction: central differences of fourth order.
  double slope(Tensor& matrix, const Tensor& direction) {
    const Tensor start = matrix;
    const auto at = [&](double distance) {
      matrix = start + distance * direction;
      return loss(start_);
    };
    const double step = 1e-5;
    const double sum = 8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step));
    matrix = start;
    return sum / (12 * step);
  }

  Rotations start_;
};

TEST_P(RotationsOfEachModel, TheFunctionStays) {
  Network network(model_, graph_, exact());
  Pass pass(network, network, Loss::kCrossEntropy);
  const double wanted = pass.forward(tokens_).sum;
  EXPECT_NEAR(loss(start_), wanted, 1e-8 * wanted);
  FloatModel folded = model_;
  rotate(folded, start_);
  Network rotated(folded, graph_, exact());
  Pass rotated_pass(rotated, rotated, Loss::kCrossEntropy);
  EXPECT_NEAR(rotated_pass.forward(tokens_).sum, wanted, 1e-5 * wanted);  // weights are fp32
}

// The loss as a function of any matrix, orthogonal or not, is smooth without quantizers.
TEST_P(RotationsOfEachModel, GradientsAreFiniteDifferences) {
  Rotations gradient;
  loss(start_, &gradient);
  const Tensor direction = torch::randn_like(start_.r1);
  const double wanted = slope(start_.r1, direction);
  EXPECT_NEAR((gradient.r1 * direction).sum().item<double>(), wanted,
              1e-6 * std::max(1.0, std::abs(wanted)));
  for (size_t l = 0; l < start_.r2.size(); ++l) {
    const Tensor around = torch::randn_like(start_.r2[l]);
    const double of_layer = slope(start_.r2[l], around);
    EXPECT_NEAR((gradient.r2[l] * around).sum().item<double>(), of_layer,
                1e-6 * std::max(1.0, std::abs(of_layer)));
  }
}

// Along the orthogonal matrices it is constant: directions R A with A skew.
TEST_P(RotationsOfEachModel, NoGradientAlongRotationsWithoutQuantizers) {
  Rotations gradient;
  loss(start_, &gradient);
  const auto along = [](const Tensor& r, const Tensor& g) {
    const Tensor a = torch::randn_like(r);
    return std::abs((g * r.matmul(a - a.t())).sum().item<double>());
  };
  EXPECT_LT(along(start_.r1, gradient.r1), 1e-7);
  for (size_t l = 0; l < start_.r2.size(); ++l) {
    EXPECT_LT(along(start_.r2[l], gradient.r2[l]), 1e-7);
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, RotationsOfEachModel, testing::ValuesIn(tiny_models()), test_name);

}  // namespace
}  // namespace qnpu
