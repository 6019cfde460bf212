// The float forward pass against transformers' logits, and against itself.
#include "quant/simulator.h"

#include <gtest/gtest.h>

#include <iostream>
#include <map>
#include <utility>
#include <vector>

#include "base/status.h"
#include "quant/test_models.h"

namespace qnpu {
namespace {

// Rounding differs with the shapes of the products; logic does not.
const std::vector<std::pair<torch::ScalarType, double>> kPrecisions = {{torch::kFloat32, 1e-5},
                                                                       {torch::kFloat64, 1e-13}};

class TinyModel : public testing::TestWithParam<std::string> {
 protected:
  TinyModel() : model_(load_float_model(tiny_model_folder(GetParam()))) {
    graph_ = build_graph(model_.config, Recipe{});
    golden_ = load_golden(tiny_model_folder(GetParam()) / "golden.safetensors");
  }
  FloatModel model_;
  Graph graph_;
  Golden golden_;
};

TEST_P(TinyModel, LogitsAreThoseOfTransformers) {
  Simulator simulator(model_, graph_);
  const torch::Tensor logits = all_logits(simulator, golden_.tokens);
  const double difference = max_difference(logits, golden_.logits);
  std::cout << "max |logit difference| " << difference << "\n";
  EXPECT_LE(difference, 1e-3);
}

TEST_P(TinyModel, StepByStepIsTheSameAsAtOnce) {
  for (const auto& [dtype, tolerance] : kPrecisions) {
    Simulator simulator(model_, graph_, dtype);
    const torch::Tensor whole = all_logits(simulator, golden_.tokens);
    simulator.reset();
    std::vector<torch::Tensor> rows;
    for (int64_t t = 0; t < golden_.tokens.size(0); ++t) {
      rows.push_back(all_logits(simulator, golden_.tokens.narrow(0, t, 1)));
      EXPECT_EQ(simulator.position(), t + 1);
    }
    EXPECT_LE(relative_difference(torch::cat(rows, 0), whole), tolerance);
  }
}

TEST_P(TinyModel, ChunksAreTheSameAsAtOnce) {
  for (const auto& [dtype, tolerance] : kPrecisions) {
    Simulator simulator(model_, graph_, dtype);
    const torch::Tensor whole = all_logits(simulator, golden_.tokens);
    simulator.reset();
    const int64_t t = golden_.tokens.size(0);
    const torch::Tensor head = all_logits(simulator, golden_.tokens.narrow(0, 0, 5));
    const torch::Tensor tail = all_logits(simulator, golden_.tokens.narrow(0, 5, t - 5));
    EXPECT_LE(relative_difference(torch::cat({head, tail}, 0), whole), tolerance);
  }
}

TEST_P(TinyModel, TruncatedTokensAreForgotten) {
  for (const auto& [dtype, tolerance] : kPrecisions) {
    Simulator simulator(model_, graph_, dtype);
    const torch::Tensor whole = all_logits(simulator, golden_.tokens);
    const int64_t t = golden_.tokens.size(0);
    for (const int64_t kept : {int64_t{0}, int64_t{5}, t - 1, t}) {
      simulator.truncate(static_cast<int>(kept));
      all_logits(simulator, golden_.tokens.narrow(0, 2, 3));  // others than those that follow
      simulator.truncate(static_cast<int>(kept));
      EXPECT_EQ(simulator.position(), kept);
      if (kept == t) continue;
      const torch::Tensor tail = all_logits(simulator, golden_.tokens.narrow(0, kept, t - kept));
      EXPECT_LE(relative_difference(tail, whole.narrow(0, kept, t - kept)), tolerance) << kept;
    }
  }
}

TEST_P(TinyModel, BatchOfTwoIsTwoSingleRuns) {
  const int64_t half = golden_.tokens.size(0) / 2;
  const torch::Tensor batch = golden_.tokens.narrow(0, 0, 2 * half).view({2, half});
  Simulator simulator(model_, graph_);
  const torch::Tensor hidden = simulator.forward(batch);
  for (int row = 0; row < 2; ++row) {
    Simulator single(model_, graph_);
    EXPECT_LE(max_difference(hidden[row], single.forward(batch.narrow(0, row, 1))[0]), 1e-5);
  }
}

TEST_P(TinyModel, DoublePrecisionAgrees) {
  Simulator simulator(model_, graph_, torch::kFloat64);
  const torch::Tensor logits = all_logits(simulator, golden_.tokens);
  EXPECT_EQ(logits.scalar_type(), torch::kFloat64);
  EXPECT_LE(max_difference(logits, golden_.logits), 1e-3);
}

TEST_P(TinyModel, HookSeesEverySiteOnce) {
  std::map<int, int> calls;
  const SiteHook count = [&](int site, const torch::Tensor& value) {
    ++calls[site];
    EXPECT_TRUE(torch::isfinite(value).all().item<bool>()) << graph_.site(site).name;
    return value;
  };
  Simulator simulator(model_, graph_);
  const torch::Tensor tokens = golden_.tokens.unsqueeze(0);
  simulator.logits(simulator.forward(tokens, count)[0], count);
  for (const Node& node : graph_.nodes) EXPECT_EQ(calls[node.out], 1) << node.name;
}

TEST_P(TinyModel, WhatTheHookReturnsIsUsed) {
  const torch::Tensor tokens = golden_.tokens.narrow(0, 0, 8).unsqueeze(0);
  for (const Node& node : graph_.nodes) {
    Simulator changed(model_, graph_);
    const SiteHook noise = [&](int site, const torch::Tensor& value) {
      return site == node.out ? value * 1.5 + 0.25 * torch::arange(value.size(-1)) : value;
    };
    const torch::Tensor logits = changed.logits(changed.forward(tokens, noise)[0], noise);
    EXPECT_GT(max_difference(logits, golden_.logits.narrow(0, 0, 8)), 1e-2) << node.name;
  }
}

// A channel and its copy, each with half of up, add what the channel added: one layer gets wider.
TEST_P(TinyModel, LayersMayHaveTheirOwnMlpSize) {
  const int more = 6;
  FloatModel wide = model_;
  wide.config.intermediate_sizes.assign(model_.config.num_layers, model_.config.intermediate_size);
  wide.config.intermediate_sizes[1] += more;
  torch::Tensor& gate = wide.weights.at("layers.1.mlp.gate_proj.weight");
  torch::Tensor& up = wide.weights.at("layers.1.mlp.up_proj.weight");
  torch::Tensor& down = wide.weights.at("layers.1.mlp.down_proj.weight");
  gate = torch::cat({gate, gate.narrow(0, 0, more)}, 0);
  const torch::Tensor half = up.narrow(0, 0, more) / 2;
  up = torch::cat({half, up.narrow(0, more, up.size(0) - more), half}, 0);
  down = torch::cat({down, down.narrow(1, 0, more)}, 1);
  const Graph graph = build_graph(wide.config, Recipe{});
  Simulator simulator(wide, graph);
  EXPECT_LE(max_difference(all_logits(simulator, golden_.tokens), golden_.logits), 1e-3);
}

TEST(TinyModels, CoverTheArchitectures) { EXPECT_GE(tiny_models().size(), 5); }

TEST(SimulatorInput, TokenOutsideTheVocabularyIsAnError) {
  const FloatModel model = load_float_model(tiny_model_folder(tiny_models().front()));
  const Graph graph = build_graph(model.config, Recipe{});
  Simulator simulator(model, graph);
  EXPECT_THROW(simulator.forward(torch::full({1, 1}, model.config.vocab_size, torch::kInt64)),
               Error);
  EXPECT_THROW(simulator.forward(torch::zeros({1, model.config.max_positions + 1}, torch::kInt64)),
               Error);
}

// Scores are made for a few heads at a time once they are large; the values are the same.
TEST(SimulatorChunks, LongSequencesGiveTheSameLogits) {
  const FloatModel model = load_float_model(tiny_model_folder("tiny-llama"));
  Graph graph = build_graph(model.config, Recipe{});
  graph.config.max_positions = 1 << 20;
  const torch::Tensor tokens = torch::arange(2100).remainder(model.config.vocab_size);
  std::map<int, int64_t> heads;
  const SiteHook count = [&](int site, const torch::Tensor& value) {
    if (graph.site(site).role == Role::kScores) heads[site] += value.size(1);
    return value;
  };
  Simulator whole(model, graph), parts(model, graph);
  const torch::Tensor hidden = whole.forward(tokens.unsqueeze(0), count)[0];
  parts.forward(tokens.narrow(0, 0, 2000).unsqueeze(0));
  const torch::Tensor tail = parts.forward(tokens.narrow(0, 2000, 100).unsqueeze(0))[0];
  EXPECT_LE(relative_difference(hidden.narrow(0, 2000, 100), tail), 1e-5);
  for (const auto& [site, count] : heads) EXPECT_EQ(count, model.config.num_heads);
}

INSTANTIATE_TEST_SUITE_P(All, TinyModel, testing::ValuesIn(tiny_models()), test_name);

}  // namespace
}  // namespace qnpu
