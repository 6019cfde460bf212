// Folding and rotating keep the function, for every architecture.
#include <gtest/gtest.h>

#include "base/status.h"
#include "quant/float_model.h"
#include "quant/test_models.h"

namespace qnpu {
namespace {

class Folding : public testing::TestWithParam<std::string> {
 protected:
  Folding() : model_(load_float_model(tiny_model_folder(GetParam()))) {
    tokens_ = load_golden(tiny_model_folder(GetParam()) / "golden.safetensors").tokens;
  }

  torch::Tensor logits(const FloatModel& model, torch::ScalarType dtype = torch::kFloat32) const {
    const Graph graph = build_graph(model.config, Recipe{});
    Simulator simulator(model, graph, dtype);
    return all_logits(simulator, tokens_);
  }

  FloatModel model_;
  torch::Tensor tokens_;
};

bool all_one(const torch::Tensor& tensor) { return tensor.eq(1).all().item<bool>(); }

TEST_P(Folding, NormsKeepTheFunction) {
  ASSERT_FALSE(all_one(model_.weights.at("norm.weight"))) << "the test would prove nothing";
  const torch::Tensor before = logits(model_);
  fold_norms(model_);
  EXPECT_LE(relative_difference(logits(model_), before), 1e-5);
  EXPECT_EQ(model_.attention_scale, 1.0);
  EXPECT_FALSE(model_.config.tied_embeddings);
  EXPECT_TRUE(all_one(model_.weights.at("norm.weight")));
  EXPECT_TRUE(all_one(model_.weights.at("layers.0.input_layernorm.weight")));
  EXPECT_TRUE(all_one(model_.weights.at("layers.1.post_attention_layernorm.weight")));
}

TEST_P(Folding, RotationsKeepTheFunction) {
  const torch::Tensor before = logits(model_);
  for (Rotation r1 : {Rotation::kNone, Rotation::kHadamard, Rotation::kRandom}) {
    for (Rotation r2 : {Rotation::kNone, Rotation::kHadamard, Rotation::kRandom}) {
      FloatModel rotated = model_;
      fold_norms(rotated);
      rotate(rotated, r1, r2, 5);
      const double difference = relative_difference(logits(rotated), before);
      EXPECT_LE(difference, 1e-4) << rotation_name(r1) << " " << rotation_name(r2);
    }
  }
}

// In double precision nothing but rounding is left: a wrong term cannot hide behind a tolerance.
TEST_P(Folding, KeepsTheFunctionInDoublePrecision) {
  for (auto& [name, weight] : model_.weights) weight = weight.to(torch::kFloat64);
  const torch::Tensor before = logits(model_, torch::kFloat64);
  fold_norms(model_);
  EXPECT_LE(relative_difference(logits(model_, torch::kFloat64), before), 1e-12);
  for (Rotation kind : {Rotation::kHadamard, Rotation::kRandom}) {
    FloatModel rotated = model_;
    rotate(rotated, kind, kind, 5);
    EXPECT_LE(relative_difference(logits(rotated, torch::kFloat64), before), 1e-12);
  }
}

// All the weights that a rotation touches do change, and by the seed.
TEST_P(Folding, RotationsChangeTheWeights) {
  fold_norms(model_);
  FloatModel a = model_, b = model_, c = model_;
  rotate(a, Rotation::kHadamard, Rotation::kHadamard, 5);
  rotate(b, Rotation::kHadamard, Rotation::kHadamard, 5);
  rotate(c, Rotation::kHadamard, Rotation::kHadamard, 6);
  for (const auto& [name, weight] : model_.weights) {
    EXPECT_TRUE(torch::equal(a.weights.at(name), b.weights.at(name))) << name;
    const bool norm = name.find("norm") != std::string::npos;
    const bool output_bias = name.ends_with("q_proj.bias") || name.ends_with("k_proj.bias");
    EXPECT_EQ(torch::equal(a.weights.at(name), weight), norm || output_bias) << name;
    EXPECT_EQ(torch::equal(a.weights.at(name), c.weights.at(name)), norm || output_bias) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Folding, testing::ValuesIn(tiny_models()), test_name);

// No tiny model has a bias on o_proj (Llama with attention_bias): make one.
TEST(FoldingBias, OutputBiasOfAttentionIsRotated) {
  FloatModel model = load_float_model(tiny_model_folder("tiny-qwen2"));
  model.config.o_bias = true;
  for (auto& [name, weight] : model.weights) weight = weight.to(torch::kFloat64);
  for (int layer = 0; layer < model.config.num_layers; ++layer) {
    model.weights[fmt::format("layers.{}.self_attn.o_proj.bias", layer)] =
        torch::linspace(-1, 1, model.config.hidden_size, torch::kFloat64);
  }
  const Graph graph = build_graph(model.config, Recipe{});
  const torch::Tensor tokens = torch::arange(24);
  Simulator original(model, graph, torch::kFloat64);
  FloatModel rotated = model;
  fold_norms(rotated);
  rotate(rotated, Rotation::kHadamard, Rotation::kRandom, 1);
  Simulator changed(rotated, graph, torch::kFloat64);
  EXPECT_LE(relative_difference(all_logits(changed, tokens), all_logits(original, tokens)), 1e-12);
}

}  // namespace
}  // namespace qnpu
