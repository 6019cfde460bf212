#include <gtest/gtest.h>
#include <torch/optim/adam.h>

#include "quant/learn/optimizer_ops.h"
#include "quant/learn/scale_optimizer.h"
#include "quant/test_models.h"

namespace qnpu {
namespace {

using torch::Tensor;

// Half of the rows with the integer -8.
RoundedWeights some_weights(torch::ScalarType codes) {
  RoundedWeights w;
  const auto type = codes == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
  w.x = torch::randn({40, 33}).to(type) * 4;
  w.g = torch::randn({40, 33}).to(type);
  w.qmin = torch::full({40}, -7.0, type);
  w.qmin.slice(0, 20).fill_(-8.0);
  w.qmax = torch::full({40}, 7.0, type);
  w.codes = torch::empty({40, 33}, codes);
  round_weights(w);
  return w;
}

Tensor clipped_by(const RoundedWeights& w, const Tensor& x) {
  const Tensor low = w.qmin.unsqueeze(1).to(x.dtype()), high = w.qmax.unsqueeze(1).to(x.dtype());
  return torch::minimum(torch::maximum(x, low), high);
}

class Optimizers : public testing::TestWithParam<torch::ScalarType> {
 protected:
  void SetUp() override { torch::manual_seed(7); }
};

TEST_P(Optimizers, WeightsFollowTorchsAdam) {
  RoundedWeights w = some_weights(GetParam());
  w.x.clamp_(-6.9, 6.9);  // the bound is tested below
  Tensor wanted = w.x.clone().requires_grad_(true);
  torch::optim::Adam adam({wanted}, torch::optim::AdamOptions(0.01).betas({0.9, 0.99}).eps(1e-12));
  Tensor m = torch::zeros_like(w.x), v = torch::zeros_like(w.x);
  for (int t = 1; t <= 3; ++t) {
    w.g = torch::randn_like(w.x);
    wanted.mutable_grad() = w.g.clone();
    adam.step();
    AdamStep step;
    step.rate = 0.01f;
    step.correct_m = 1.0f - std::pow(step.beta_m, static_cast<float>(t));
    step.correct_v = 1.0f - std::pow(step.beta_v, static_cast<float>(t));
    adam_weights(w, step, m, v);
    EXPECT_LT(max_difference(w.x, wanted), 2e-5);
    EXPECT_EQ(w.g.count_nonzero().item<int>(), 0);
    EXPECT_TRUE(torch::equal(w.codes.to(torch::kFloat64), w.x.to(torch::kFloat64).round()));
  }
}

TEST_P(Optimizers, WeightsStayWithinHalfAStepOfTheRange) {
  RoundedWeights w = some_weights(GetParam());
  w.g.fill_(-1.0);
  Tensor m = torch::zeros_like(w.x), v = torch::zeros_like(w.x);
  AdamStep step;
  step.rate = 100.0f;
  adam_weights(w, step, m, v);
  EXPECT_EQ(w.x.min().item<double>(), 7.5);
  EXPECT_EQ(w.codes.max().item<double>(), 7.0);
  w.g.fill_(1.0);
  step.rate = 1000.0f;
  adam_weights(w, step, m, v);
  EXPECT_TRUE((w.x == w.qmin.unsqueeze(1) - 0.5).all().item<bool>());
  EXPECT_TRUE(
      (w.codes.to(torch::kFloat64) == w.qmin.to(torch::kFloat64).unsqueeze(1)).all().item<bool>());
}

// libtorch's own gradients of scale * round(clamp(x)).
TEST_P(Optimizers, ScaleGradientsAreThoseOfTheRoundedWeight) {
  for (const bool fixed : {false, true}) {
    const RoundedWeights w = some_weights(GetParam());
    const Tensor log_scale = torch::randn({40}, torch::kFloat64).requires_grad_(true);
    const Tensor scale = log_scale.exp().unsqueeze(1);
    // Fixed weights scale0 * x are divided by the scale; learned x are not.
    const Tensor v =
        w.x.to(torch::kFloat64) * (fixed ? scale.detach() / scale : torch::ones_like(scale));
    const Tensor clipped = clipped_by(w, v);
    const Tensor rounded = clipped + (clipped.round() - clipped).detach();
    // g is the gradient of the integers: that of the weight times the scale.
    const Tensor weight_gradient = w.g.to(torch::kFloat64) / scale.detach();
    const Tensor loss = (rounded * scale * weight_gradient).sum();
    const Tensor wanted = torch::autograd::grad({loss}, {log_scale})[0];
    EXPECT_LT(relative_difference(scale_gradients(w, fixed), wanted), 1e-5) << fixed;
  }
}

TEST_P(Optimizers, ClippedWeightsHaveNoGradient) {
  RoundedWeights w = some_weights(GetParam());
  const Tensor wanted = torch::where(clipped_by(w, w.x) != w.x, torch::zeros_like(w.g), w.g);
  mask_clipped(w);
  EXPECT_TRUE(torch::equal(w.g, wanted));
}

INSTANTIATE_TEST_SUITE_P(Types, Optimizers,
                         testing::Values(torch::kFloat32, torch::kBFloat16, torch::kFloat64),
                         [](const auto& info) { return std::string(torch::toString(info.param)); });

TEST(StepScales, SgdIsLsqs) {
  const Tensor start = torch::tensor({0.5, 2.0}, torch::kFloat64);
  ScaleVector scales(start);
  const Tensor slope = torch::tensor({0.1, -0.3}, torch::kFloat64);  // d(loss) / d(scale)
  const Tensor factor = torch::tensor({0.01, 0.02}, torch::kFloat64);
  const ScaleRule rule{Optimizer::kSgd, 0.5, 0.9, 1};
  step_scales(scales, slope * start, factor, rule);
  const Tensor once = start - 0.5 * factor * slope;
  EXPECT_LT(max_difference(scales.log_scale.exp(), once), 1e-15);
  step_scales(scales, slope * once, factor, rule);
  EXPECT_LT(max_difference(scales.log_scale.exp(), once - 0.5 * 1.9 * factor * slope), 1e-15);
}

TEST(StepScales, AdamMovesByTheRate) {
  ScaleVector scales(torch::tensor({1e-3, 10.0}, torch::kFloat64));
  const Tensor gradient = torch::tensor({1e-9, -5.0}, torch::kFloat64);
  step_scales(scales, gradient, {}, {Optimizer::kAdam, 0.01, 0.0, 1});
  const Tensor wanted = torch::tensor({1e-3 * std::exp(-0.01), 10.0 * std::exp(0.01)});
  EXPECT_LT(relative_difference(scales.log_scale.exp(), wanted), 1e-3);
}

TEST(StepScales, StayPositive) {
  ScaleVector scales(torch::tensor({0.1}, torch::kFloat64));
  const Tensor one = torch::ones({1}, torch::kFloat64);
  step_scales(scales, one, one, {Optimizer::kSgd, 1e6, 0.0, 1});
  EXPECT_GT(scales.log_scale.exp().item<double>(), 0.0);
}

}  // namespace
}  // namespace qnpu
