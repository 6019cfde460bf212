#include "quant/split.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "quant/test_models.h"

namespace qnpu {
namespace {

// An MLP of one channel that passes its only input on, after the channel became `copies`.
FloatModel one_channel_split(int copies) {
  FloatModel model;
  model.config.num_layers = 1;
  model.config.intermediate_size = 1;
  for (const char* name : {"gate", "up", "down"}) {
    model.weights[fmt::format("layers.0.mlp.{}_proj.weight", name)] = torch::ones({1, 1});
  }
  split_mlp(model, 0, {{copies}, {1.0}});
  return model;
}

MlpMaxima both(const torch::Tensor& maxima) { return {maxima, maxima}; }

TEST(PlanSplit, CopiesOutliersAndFillsUp) {
  std::vector<float> maxima(64, 1.0f);
  maxima[5] = 9.0f;   // 3 copies at ratio 4
  maxima[9] = 40.0f;  // 10 copies
  const SplitPlan plan =
      plan_split(both(torch::tensor(maxima)), {.ratio = 4, .balance = 2, .multiple = 8});
  EXPECT_EQ(plan.copies[5], 4);
  // 64 + 2 + 9 = 75 channels; of the five that make 80, four go to channel 9: 40 / 13 > 9 / 3.
  EXPECT_EQ(std::accumulate(plan.copies.begin(), plan.copies.end(), 0), 80);
  EXPECT_EQ(plan.copies[9], 14);
  EXPECT_EQ(plan.copies[0], 1);
  EXPECT_EQ(plan.balance[0], 1.0);
  EXPECT_DOUBLE_EQ(plan.balance[5], 9.0 / 4 / 2);
  EXPECT_DOUBLE_EQ(plan.balance[9], 40.0 / 14 / 2);
}

// After the split no copy is above ratio / balance times the median, as far as balance reaches.
TEST(PlanSplit, BoundsEveryCopy) {
  torch::manual_seed(4);
  const torch::Tensor maxima = torch::exp(torch::randn({200}) * 1.5);
  const SplitSpec spec{.ratio = 4, .balance = 2, .multiple = 32};
  const SplitPlan plan = plan_split(both(maxima), spec);
  const float middle = std::get<0>(maxima.sort())[100].item<float>();
  for (int j = 0; j < 200; ++j) {
    const double value = maxima[j].item<float>() / (plan.copies[j] * plan.balance[j]);
    EXPECT_LE(value, middle * spec.ratio / spec.balance * (1 + 1e-6)) << j;
    EXPECT_GE(plan.balance[j], 1.0);
  }
}

TEST(PlanSplit, SilentChannelsStay) {
  const SplitPlan plan = plan_split(both(torch::zeros({32})), {});
  EXPECT_EQ(plan.copies, std::vector<int>(32, 1));
}

TEST(PlanSplit, FillsUpWhereTheMedianIsSilentToo) {
  torch::Tensor maxima = torch::zeros({30});
  maxima[7] = 3.0f;
  const SplitPlan plan = plan_split(both(maxima), {.ratio = 4, .balance = 2, .multiple = 32});
  EXPECT_EQ(std::accumulate(plan.copies.begin(), plan.copies.end(), 0), 32);
  EXPECT_EQ(plan.copies[7], 3);
  EXPECT_EQ(plan.balance, std::vector<double>(30, 1.0));
}

// Most channels are tiny: the others are no outliers of 10^4 and more copies.
TEST(PlanSplit, WidensAtMostTwice) {
  const SplitSpec spec{.ratio = 4, .balance = 2, .multiple = 1};
  for (const float tiny : {1e-4f, 1e-20f, 1e-45f}) {
    torch::Tensor maxima = torch::ones({100});
    maxima.slice(0, 0, 60) = tiny;
    const SplitPlan plan = plan_split(both(maxima), spec);
    EXPECT_LE(std::accumulate(plan.copies.begin(), plan.copies.end(), 0), 200) << tiny;
    EXPECT_GE(plan.copies[99], 2) << tiny;
    for (const double balance : plan.balance) {
      EXPECT_GE(balance, 1.0);
      EXPECT_LE(balance, spec.balance);
    }
  }
  torch::Tensor one = torch::ones({100});
  one[3] = 1e9f;
  EXPECT_EQ(plan_split(both(one), spec).copies[3], 64);
}

// Of each channel the larger of both magnitudes comes half of the way, in decibels, to the median.
TEST(PlanSplit, EqualizedChannelsComeNearer) {
  torch::manual_seed(5);
  const torch::Tensor up = torch::exp(torch::randn({200}) * 0.3);
  const torch::Tensor down = torch::exp(torch::randn({200}) * 0.4);
  const SplitPlan plan = plan_split({up, down}, {.ratio = 4, .equalize = true, .multiple = 32});
  const double middle_up = std::get<0>(up.sort())[100].item<float>();
  const double middle_down = std::get<0>(down.sort())[100].item<float>();
  for (int j = 0; j < 200; ++j) {
    const double of_copy =
        std::max(up[j].item<float>() / middle_up, down[j].item<float>() / middle_down) /
        plan.copies[j];
    EXPECT_NEAR(of_copy / plan.balance[j], std::sqrt(of_copy), 1e-6) << j;
  }
}

// A channel that hardly speaks in the calibration text may do so in another.
TEST(PlanSplit, EqualizesQuietChannelsWithinABound) {
  torch::Tensor maxima = torch::ones({32});
  maxima[3] = 1e-6f;
  maxima[4] = 0.0f;
  maxima[5] = 0.5f;
  const SplitPlan plan = plan_split(both(maxima), {.equalize = true, .multiple = 32});
  EXPECT_EQ(plan.balance[3], 0.25);
  EXPECT_EQ(plan.balance[4], 0.25);
  EXPECT_DOUBLE_EQ(plan.balance[5], std::sqrt(0.5));
  EXPECT_EQ(plan.balance[0], 1.0);
}

// Copies of one channel, rounded like up_proj's output: equal ones would err together, by m times
// the error of one; these err by about its square root.
TEST(SplitMlp, CopiesAreRoundedIndependently) {
  constexpr int kCopies = 16;
  const FloatModel wide = one_channel_split(kCopies);
  const torch::Tensor up = wide.weights.at("layers.0.mlp.up_proj.weight").select(1, 0);
  const torch::Tensor down = wide.weights.at("layers.0.mlp.down_proj.weight").select(0, 0);
  torch::manual_seed(6);
  const torch::Tensor x = torch::rand({4000, 1}) * 100 + 100;
  const torch::Tensor values = torch::matmul(x, up.unsqueeze(0));  // [4000, F']
  const torch::Tensor error = torch::matmul(values.round() - values, down);
  const double rms = error.square().mean().sqrt().item<double>();
  const double one = std::sqrt(1.0 / 12);
  EXPECT_LT(rms, 1.5 * std::sqrt(double{kCopies}) * one);
  EXPECT_LT(torch::matmul(values, down).sub(x.flatten()).abs().max().item<double>(), 1e-3);
}

class SplitTest : public testing::TestWithParam<std::string> {};

TEST_P(SplitTest, KeepsTheFunction) {
  FloatModel model = load_float_model(tiny_model_folder(GetParam()));
  const torch::Tensor tokens = torch::arange(1, 25, torch::kInt64);
  const Graph before = build_graph(model.config, Recipe{});
  Simulator original(model, before);
  const torch::Tensor expected = all_logits(original, tokens);
  for (int layer = 0; layer < model.config.num_layers; ++layer) {
    torch::manual_seed(layer);
    const torch::Tensor maxima = torch::exp(torch::randn({model.config.mlp_size(layer)}) * 2);
    const bool equalize = layer % 2 == 1;
    split_mlp(model, layer,
              plan_split({maxima.sqrt(), maxima},
                         {.ratio = 3, .balance = 2, .equalize = equalize, .multiple = 16}));
    EXPECT_EQ(model.config.mlp_size(layer) % 16, 0);
  }
  const Graph after = build_graph(model.config, Recipe{});
  Simulator widened(model, after);
  EXPECT_LE(relative_difference(all_logits(widened, tokens), expected), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(TinyModels, SplitTest, testing::ValuesIn(tiny_models()), test_name);

}  // namespace
}  // namespace qnpu
