// That the function is kept, and the factors against the formula.
#include "quant/smooth.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/status.h"
#include "quant/channel_maxima.h"
#include "quant/prefix.h"
#include "quant/test_models.h"

namespace qnpu {
namespace {

const std::vector<Window> kWindows = {{1, 5, 9, 2, 40, 7, 80, 81, 82, 3}, {3, 3, 60, 11, 12}};

class SmoothTest : public testing::TestWithParam<std::string> {
 protected:
  SmoothTest() {
    before_ = load_float_model(tiny_model_folder(GetParam()));
    fold_norms(before_);
    after_ = before_;
    graph_ = build_graph(before_.config, Recipe{});
    maxima_ = channel_maxima(before_, graph_, kWindows, smooth_sites(graph_), {});
  }
  const torch::Tensor& maxima(const std::string& site) const {
    return maxima_.at(graph_.find_site(site));
  }

  // s_j by hand.
  double factor(const std::string& site, const std::vector<std::string>& readers, int64_t j,
                double alpha) const {
    double largest = 0.0;
    for (const std::string& reader : readers) {
      const torch::Tensor& w = before_.weights.at("layers.1." + reader + ".weight");
      for (int64_t n = 0; n < w.size(0); ++n) {
        largest = std::max<double>(largest, std::fabs(w[n][j].item<float>()));
      }
    }
    const double x = maxima("layers.1." + site)[j].item<float>();
    return std::max(std::pow(x, alpha) / std::pow(largest, 1.0 - alpha), 1e-5);
  }

  FloatModel before_, after_;
  Graph graph_;
  std::map<int, torch::Tensor> maxima_;
};

TEST_P(SmoothTest, KeepsTheFunction) {
  for (double alpha : {0.0, 0.5, 0.85}) {
    FloatModel smoothed = before_;
    smooth(smoothed, graph_, maxima_, {alpha});
    const torch::Tensor tokens =
        load_golden(tiny_model_folder(GetParam()) / "golden.safetensors").tokens;
    Simulator a(before_, graph_);
    Simulator b(smoothed, graph_);
    EXPECT_LE(relative_difference(all_logits(b, tokens), all_logits(a, tokens)), 1e-4);
  }
}

TEST_P(SmoothTest, NormsHoldTheFormulaOnTheirTablesGrid) {
  smooth(after_, graph_, maxima_, {0.5});
  const torch::Tensor& gamma = after_.weights.at("layers.1.input_layernorm.weight");
  const double step = gamma.max().item<double>() / 32767;
  for (int64_t j = 0; j < gamma.size(0); ++j) {
    const double s = factor("self_attn.qkv_proj.in",
                            {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, j, 0.5);
    const double g = gamma[j].item<double>();
    EXPECT_NEAR(g, 1.0 / s, 0.501 * step);
    EXPECT_NEAR(g / step, std::round(g / step), 1e-2);
    for (const char* reader : {"q_proj", "v_proj"}) {
      const std::string name = fmt::format("layers.1.self_attn.{}.weight", reader);
      EXPECT_NEAR(after_.weights.at(name)[3][j].item<double>() * g,
                  before_.weights.at(name)[3][j].item<double>(), 1e-6);
    }
  }
}

TEST_P(SmoothTest, RowsOfUpAreDivided) {
  smooth(after_, graph_, maxima_, {0.75});
  const torch::Tensor& down = after_.weights.at("layers.1.mlp.down_proj.weight");
  for (int64_t j = 0; j < down.size(1); ++j) {
    const double s = factor("mlp.down_proj.in", {"mlp.down_proj"}, j, 0.75);
    const double was = before_.weights.at("layers.1.mlp.down_proj.weight")[2][j].item<float>();
    EXPECT_NEAR(down[2][j].item<float>(), was * s, 1e-5 * std::fabs(was * s) + 1e-12);
  }
  const auto now =
      channel_maxima(after_, graph_, kWindows, {graph_.find_site("layers.1.mlp.down_proj.in")}, {});
  for (const auto& [site, largest] : now) {
    for (int64_t j = 0; j < largest.size(0); ++j) {
      const double s = factor("mlp.down_proj.in", {"mlp.down_proj"}, j, 0.75);
      const double expected = maxima("layers.1.mlp.down_proj.in")[j].item<float>() / s;
      EXPECT_NEAR(largest[j].item<float>(), expected, 1e-4 * expected);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(TinyModels, SmoothTest, testing::ValuesIn(tiny_models()), test_name);

// All tiny models have grouped heads; one whose key and value heads are repeated has not.
TEST(Smooth, ValuesWithoutGroupedHeads) {
  FloatModel model = load_float_model(tiny_model_folder("tiny-qwen2"));
  fold_norms(model);
  const Graph grouped = build_graph(model.config, Recipe{});
  const int64_t head = model.config.head_dim;
  const int64_t times = model.config.num_heads / model.config.num_kv_heads;
  ASSERT_GT(times, 1);
  for (auto& [name, tensor] : model.weights) {
    if (name.find("k_proj") == std::string::npos && name.find("v_proj") == std::string::npos) {
      continue;
    }
    tensor = tensor.unflatten(0, {-1, head}).repeat_interleave(times, 0).flatten(0, 1).contiguous();
  }
  model.config.num_kv_heads = model.config.num_heads;
  const Graph graph = build_graph(model.config, Recipe{});
  model.prefix = compute_prefix(model, graph, {7, 3});
  EXPECT_EQ(smooth_sites(graph).size(),
            smooth_sites(grouped).size() + static_cast<size_t>(model.config.num_layers));
  FloatModel smoothed = model;
  const auto maxima = channel_maxima(model, graph, kWindows, smooth_sites(graph), {});
  smooth(smoothed, graph, maxima, {0.5});
  const char* name = "layers.0.self_attn.v_proj.bias";
  EXPECT_GT(max_difference(smoothed.weights.at(name), model.weights.at(name)), 0.0);
  const torch::Tensor tokens =
      load_golden(tiny_model_folder("tiny-qwen2") / "golden.safetensors").tokens;
  Simulator a(model, graph);
  Simulator b(smoothed, graph);
  EXPECT_LE(relative_difference(all_logits(b, tokens), all_logits(a, tokens)), 1e-4);
}

}  // namespace
}  // namespace qnpu
