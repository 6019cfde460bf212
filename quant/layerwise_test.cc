// Rounding layer by layer on the tiny models: nearer to the float model than rounding to nearest,
// and frozen to the integers that were chosen.
#include "quant/layerwise.h"

#include <gtest/gtest.h>

#include "quant/fake_quant.h"
#include "quant/learn/workers_testing.h"
#include "quant/ranges.h"
#include "quant/test_models.h"
#include "quant/weights.h"

namespace qnpu {
namespace {

std::vector<Window> some_windows(int vocab) {
  std::vector<Window> windows(6, Window(64));
  uint32_t state = 1;
  for (Window& window : windows) {
    for (int& token : window) {
      state = state * 1664525u + 1013904223u;
      token = static_cast<int>((state >> 8) % static_cast<uint32_t>(vocab));
    }
  }
  return windows;
}

torch::Tensor rounded(const torch::Tensor& weight, const std::vector<float>& scale, int bits) {
  torch::Tensor q = torch::empty(weight.sizes(), torch::kInt8);
  round_weights({weight.data_ptr<float>(), weight.size(0), weight.size(1)}, scale.data(),
                weight_range({.bitwidth = bits}), q.data_ptr<int8_t>());
  return q.to(torch::kFloat32) * torch::tensor(scale).unsqueeze(1);
}

class LayerwiseTest : public testing::TestWithParam<std::string> {
 protected:
  LayerwiseTest() : model_(load_float_model(tiny_model_folder(GetParam()))) {
    fold_norms(model_);
    windows_ = some_windows(model_.config.vocab_size);
    graph_ = graph_of("w4a8kv8");
    tokens_ = torch::tensor(std::vector<int64_t>(windows_[0].begin(), windows_[0].end()));
    Simulator simulator(model_, graph_);
    original_ = all_logits(simulator, tokens_);
  }

  Graph graph_of(const std::string& recipe) const {
    const auto path = source_folder() / "recipes" / (recipe + ".json");
    Graph graph = build_graph(model_.config, load_recipe(path));
    assign_ranges(graph, calibrate(model_, graph, windows_, {}));
    return graph;
  }

  // Squared error of the logits, activations rounded too, of weights rounded by the sites' scales.
  double error(const FloatModel& model, const Graph& graph) const {
    Simulator simulator(model, graph);
    for (const Node& node : graph.nodes) {
      if (!rounded_layerwise(graph, node)) continue;
      const Site& site = graph.site(node.weight);
      const torch::Tensor& weight = model.weights.at(site.name);
      std::vector<float> scale = site.qparams.scale;
      if (scale.empty()) {
        scale.resize(static_cast<size_t>(site.rows));
        weight_scales({weight.data_ptr<float>(), site.rows, site.cols}, site.spec, false,
                      scale.data());
      }
      simulator.set_weight(site.name, rounded(weight, scale, site.spec.bitwidth));
    }
    const SiteHook hook = site_quant_hook(graph);
    const torch::Tensor hidden = simulator.forward(tokens_.unsqueeze(0), hook)[0];
    return (simulator.logits(hidden) - original_).square().sum().item<double>();
  }

  FloatModel model_;
  Graph graph_;
  std::vector<Window> windows_;
  torch::Tensor tokens_, original_;
};

TEST_P(LayerwiseTest, IsNearerThanNearest) {
  const double nearest = error(model_, graph_);
  for (bool feedback : {false, true}) {
    FloatModel model = model_;
    Graph graph = graph_;
    const RoundingReports reports =
        round_layerwise(model, graph, windows_, {.feedback = feedback}, {});
    EXPECT_EQ(reports.size(), static_cast<size_t>(7 * model.config.num_layers));
    for (const auto& [name, report] : reports) EXPECT_LE(report.error, report.gptq_error) << name;
    EXPECT_LT(error(model, graph), nearest) << "feedback " << feedback;
  }
}

// Of what reaches the head, the 4-bit head's share of the error alone falls too.
TEST_P(LayerwiseTest, RoundsAFourBitHead) {
  const Graph narrow = graph_of("auto");
  FloatModel model = model_;
  Graph graph = narrow;
  const RoundingReports reports = round_layerwise(model, graph, windows_, {}, {});
  EXPECT_EQ(reports.size(), static_cast<size_t>(7 * model.config.num_layers + 1));
  EXPECT_LE(reports.at("lm_head.weight").error, reports.at("lm_head.weight").gptq_error);
  const int head = graph.find_site("lm_head.weight");
  EXPECT_EQ(graph.site(head).qparams.scale.size(), static_cast<size_t>(model.config.vocab_size));
  Graph nearest = graph;  // the same layers under a head that is rounded to nearest
  nearest.sites[static_cast<size_t>(head)].qparams.scale.clear();
  FloatModel plain = model;
  plain.weights.at("lm_head.weight") = model_.weights.at("lm_head.weight");
  EXPECT_LT(error(model, graph), error(plain, nearest));
}

// Weights stay inside the bins of their integers, so that rounding to nearest finds them again.
TEST_P(LayerwiseTest, WeightsAreWellInsideTheirBins) {
  round_layerwise(model_, graph_, windows_, {}, {});
  for (const Site& site : graph_.sites) {
    if (site.role != Role::kWeight || site.layer < 0) continue;
    const torch::Tensor& weight = model_.weights.at(site.name);
    const torch::Tensor center = rounded(weight, site.qparams.scale, site.spec.bitwidth);
    const torch::Tensor scale = torch::tensor(site.qparams.scale).unsqueeze(1);
    EXPECT_LE(((weight - center).abs() / scale).max().item<double>(), 0.451) << site.name;
  }
}

// Ranges to the bit: extremes and histograms do not depend on the order.
TEST_P(LayerwiseTest, WorkersFindTheSame) {
  std::vector<Graph> graphs(4, graph_);
  std::vector<FloatModel> models(4, model_);
  const RoundingReports wanted = round_layerwise(models[3], graphs[3], windows_, {}, {});
  std::vector<RoundingReports> reports(3);
  run_workers(3, [&](const Workers& workers) {
    const auto i = static_cast<size_t>(workers.rank());
    assign_ranges(graphs[i], calibrate(model_, graphs[i], windows_, {}, {}, workers));
    for (size_t s = 0; s < graph_.sites.size(); ++s) {
      EXPECT_EQ(graphs[i].sites[s].qparams.scale, graph_.sites[s].qparams.scale);
      EXPECT_EQ(graphs[i].sites[s].qparams.zero_point, graph_.sites[s].qparams.zero_point);
    }
    reports[i] = round_layerwise(models[i], graphs[i], windows_, {}, {}, workers);
  });
  ASSERT_EQ(reports[0].size(), wanted.size());
  for (const auto& [name, report] : wanted) {
    EXPECT_NEAR(reports[0].at(name).error, report.error, 0.05 * report.error) << name;
    const int site = graph_.find_site(name);
    EXPECT_EQ(graphs[1].site(site).qparams.scale, graphs[0].site(site).qparams.scale);
    EXPECT_TRUE(torch::equal(models[2].weights.at(name), models[0].weights.at(name))) << name;
  }
}

// Linears that are switched off: down_proj reads zeros, or the residual stream gets none.
TEST(Layerwise, ZerosStayZeros) {
  const std::vector<std::vector<std::string>> cases = {
      {"layers.0.mlp.up_proj"},
      {"layers.0.self_attn.v_proj"},
      {"layers.1.self_attn.o_proj", "layers.1.mlp.down_proj"}};
  for (const auto& names : cases) {
    FloatModel model = load_float_model(tiny_model_folder("tiny-llama"));
    fold_norms(model);
    for (const std::string& name : names) {
      torch::Tensor& weight = model.weights.at(name + ".weight");
      weight = torch::zeros_like(weight);
    }
    Graph graph =
        build_graph(model.config, load_recipe(source_folder() / "recipes" / "w4a8kv8.json"));
    const std::vector<Window> windows = some_windows(model.config.vocab_size);
    assign_ranges(graph, calibrate(model, graph, windows, {}));
    round_layerwise(model, graph, windows, {}, {});
    for (const auto& [name, weight] : model.weights) {
      EXPECT_TRUE(weight.isfinite().all().item<bool>()) << name;
    }
    for (const std::string& name : names) {
      EXPECT_FALSE(model.weights.at(name + ".weight").any().item<bool>()) << name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(TinyModels, LayerwiseTest, testing::ValuesIn(tiny_models()), test_name);

}  // namespace
}  // namespace qnpu
