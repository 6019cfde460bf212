#include "quant/rounded_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "quant/test_models.h"

namespace qnpu {
namespace {

// Weight by weight, by the definition.
TEST(RoundedModel, WeightsAreOnTheGridOfTheirScales) {
  FloatModel model = load_float_model(tiny_model_folder("tiny-llama"));
  fold_norms(model);
  Recipe recipe;
  Rule four_bits;
  four_bits.match = "*_proj.weight";
  four_bits.bitwidth = 4;
  recipe.rules = {four_bits};
  Graph graph = build_graph(model.config, recipe);
  const std::string name = "layers.1.mlp.down_proj.weight";
  Site& site = graph.sites[static_cast<size_t>(graph.find_site(name))];
  for (int64_t row = 0; row < site.rows; ++row) {
    site.qparams.scale.push_back(0.01f + 0.001f * static_cast<float>(row));
  }
  const torch::Tensor before = model.weights.at(name).clone();
  const FloatModel rounded = with_rounded_weights(model, graph);
  EXPECT_TRUE(torch::equal(model.weights.at(name), before));
  const auto wanted = before.accessor<float, 2>();
  const auto got = rounded.weights.at(name).accessor<float, 2>();
  for (int64_t row = 0; row < site.rows; ++row) {
    const float scale = site.qparams.scale[static_cast<size_t>(row)];
    for (int64_t col = 0; col < site.cols; ++col) {
      const float q = std::clamp(std::nearbyint(wanted[row][col] / scale), -7.0f, 7.0f);
      ASSERT_EQ(got[row][col], q * scale);
    }
  }
  EXPECT_TRUE(
      torch::equal(rounded.weights.at("lm_head.weight"), model.weights.at("lm_head.weight")));
}

TEST(RoundedModel, LearnedRangesAreThoseOfEightBits) {
  const ModelConfig config = load_config(tiny_model_folder("tiny-llama") / "config.json");
  Recipe recipe;
  Rule wide;
  wide.match = "layers.*.mlp.down_proj.in";
  wide.bitwidth = 16;
  recipe.rules = {wide};
  const Graph graph = build_graph(config, recipe);
  // Inputs of qkv, o and gate, up; outputs of the six linears that read them.
  for (const auto& [inputs, outputs] :
       {std::pair(false, false), std::pair(true, false), std::pair(true, true)}) {
    LearnSpec spec;
    spec.input_scales = inputs;
    spec.output_scales = outputs;
    const std::map<int, QParams> learned = learned_ranges(graph, spec);
    EXPECT_EQ(learned.size(), ((inputs ? 3u : 0u) + (outputs ? 6u : 0u)) * config.num_layers);
    for (const auto& [site, qparams] : learned) {
      EXPECT_EQ(graph.site(site).name.find("down_proj"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace qnpu
