// Against the formula over recorded values.
#include "quant/sensitivity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/status.h"
#include "quant/test_models.h"

namespace qnpu {
namespace {

const std::vector<Window> kWindows = {{1, 5, 9, 2, 40, 7}, {3, 3, 60, 11}};

class SensitivityTest : public testing::Test {
 protected:
  SensitivityTest() {
    model_ = load_float_model(tiny_model_folder("tiny-llama"));
    // One channel of the last layer far above the others: it takes the range.
    model_.weights.at("layers.1.mlp.up_proj.weight")[5] *= 300.0;
    graph_ = build_graph(model_.config, Recipe{});
  }

  std::vector<float> values(int layer) {
    const int wanted = graph_.find_site(fmt::format("layers.{}.mlp.down_proj.in", layer));
    std::vector<float> all;
    Simulator simulator(model_, graph_);
    read_windows(simulator, kWindows,
                 [&](int site, const torch::Tensor& value) {
                   if (site == wanted) {
                     const torch::Tensor x = value.contiguous();
                     all.insert(all.end(), x.data_ptr<float>(), x.data_ptr<float>() + x.numel());
                   }
                   return value;
                 },
                 false, {});
    return all;
  }

  FloatModel model_;
  Graph graph_;
};

TEST_F(SensitivityTest, IsEquationFour) {
  const Sensitivity s = measure_sensitivity(model_, graph_, kWindows, {0.5}, {});
  ASSERT_EQ(s.ratio.size(), 2u);
  for (int layer : {0, 1}) {
    const std::vector<float> x = values(layer);
    double largest = 0.0;
    for (float v : x) largest = std::max<double>(largest, std::fabs(v));
    const double step = largest / 127;
    double sum = 0.0;
    for (float v : x) {
      const double deq = step * std::nearbyint(v / step);
      sum += std::fabs(deq - v) / (std::fabs(v) + 1e-8);
    }
    EXPECT_NEAR(s.ratio[layer], sum / x.size(), 1e-4);
  }
  EXPECT_GT(s.ratio[1], s.ratio[0]);
  EXPECT_EQ(s.chosen, std::vector<int>{1});
}

TEST_F(SensitivityTest, SharesAreRoundedUpAndBecomeRules) {
  const auto chosen = [&](double share) {
    return measure_sensitivity(model_, graph_, kWindows, {share}, {}).chosen;
  };
  EXPECT_EQ(chosen(0.0), std::vector<int>{});
  EXPECT_EQ(chosen(0.1), std::vector<int>{1});
  EXPECT_EQ(chosen(0.51), (std::vector<int>{0, 1}));
  EXPECT_EQ(chosen(1.0), (std::vector<int>{0, 1}));
  Recipe recipe;
  widen_sensitive(recipe, {{0.1, 0.2}, {1}});
  const Graph graph = build_graph(model_.config, recipe);
  const auto dtype = [&](const char* name) {
    return graph.site(graph.find_site(name)).qparams.dtype;
  };
  EXPECT_EQ(dtype("layers.0.mlp.down_proj.in"), DType::kS8);
  EXPECT_EQ(dtype("layers.1.mlp.down_proj.in"), DType::kS16);
}

}  // namespace
}  // namespace qnpu
