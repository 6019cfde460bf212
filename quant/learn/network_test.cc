#include "quant/learn/network.h"

#include <gtest/gtest.h>

#include "quant/learn/pass.h"
#include "quant/test_models.h"

namespace qnpu {
namespace {

using torch::Tensor;

FloatModel folded(const std::string& name) {
  FloatModel model = load_float_model(tiny_model_folder(name));
  fold_norms(model);
  return model;
}

NetworkOptions unrounded(torch::ScalarType type) {
  NetworkOptions options;
  options.type = type;
  options.round_inputs = options.round_weights = false;
  return options;
}

// Logits [B * T, V].
Tensor logits(Network& network, const Tensor& tokens) {
  const torch::NoGradGuard no_grad;
  Tensor hidden = network.embed(tokens);
  for (int l = 0; l < network.layers(); ++l) hidden = network.layer(l, hidden, tokens.size(0));
  const Tensor x = network.head_input(hidden).to(network.head().codes.scalar_type());
  return torch::matmul(x, network.head().codes.t());
}

class EachModel : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    torch::manual_seed(4);
    model_ = folded(GetParam());
    graph_ = build_graph(model_.config, Recipe{});
    tokens_ = load_golden(tiny_model_folder(GetParam()) / "golden.safetensors").tokens;
  }
  FloatModel model_;
  Graph graph_;
  Tensor tokens_;  // [T]
};

TEST_P(EachModel, WithoutRoundingIsTheSimulator) {
  Simulator simulator(model_, graph_);
  const Tensor wanted = all_logits(simulator, tokens_);
  Network fp32(model_, graph_, unrounded(torch::kFloat32));
  EXPECT_LT(relative_difference(logits(fp32, tokens_.unsqueeze(0)), wanted), 1e-4);
  Network bf16(model_, graph_, unrounded(torch::kBFloat16));
  // No worse than a walk that rounds to bf16 wherever transformers does.
  Simulator bf16_simulator(model_, graph_, torch::kBFloat16);
  const double usual = relative_difference(all_logits(bf16_simulator, tokens_), wanted);
  EXPECT_LT(relative_difference(logits(bf16, tokens_.unsqueeze(0)), wanted), 1.5 * usual);
}

TEST_P(EachModel, SequencesOfABatchDoNotMix) {
  Network network(model_, graph_, unrounded(torch::kFloat32));
  const int64_t half = tokens_.size(0) / 2;
  const Tensor a = tokens_.narrow(0, 0, half), b = tokens_.narrow(0, half, half);
  const Tensor both = logits(network, torch::stack({a, b}));
  EXPECT_LT(relative_difference(both.narrow(0, half, half), logits(network, b.unsqueeze(0))), 1e-5);
}

// Inputs of at most 8 bits, the head's too, against the simulator with a plain rounding.
TEST_P(EachModel, DynamicInputsAreRoundedByToken) {
  Recipe recipe;
  recipe.rules = {{.match = "lm_head.in", .bitwidth = 8},
                  {.match = "layers.*.o_proj.in", .bitwidth = 4},
                  {.match = "layers.0.mlp.down_proj.in", .bitwidth = 16}};
  const Graph graph = build_graph(model_.config, recipe);
  std::map<int, int> qmax;
  for (const Node& node : graph.nodes) {
    if (node.op != Op::kLinear) continue;
    const std::string& name = graph.site(node.in[0]).name;
    if (name == "layers.0.mlp.down_proj.in") continue;
    qmax[node.in[0]] = name.ends_with("o_proj.in") ? 7 : 127;
  }
  Simulator simulator(model_, graph, torch::kFloat64);
  const SiteHook round = [&](int site, const Tensor& value) {
    if (!qmax.contains(site)) return value;
    const Tensor step = std::get<0>(value.abs().max(-1, /*keepdim=*/true)) / qmax.at(site);
    return (value / step).round() * step;
  };
  const Tensor wanted = simulator.logits(simulator.forward(tokens_.unsqueeze(0), round)[0], round);
  NetworkOptions options = unrounded(torch::kFloat64);
  options.round_inputs = options.dynamic_inputs = true;
  Network network(model_, graph, options);
  EXPECT_LT(relative_difference(logits(network, tokens_.unsqueeze(0)), wanted), 1e-9);
  Network plain(model_, graph, unrounded(torch::kFloat64));
  EXPECT_GT(relative_difference(logits(plain, tokens_.unsqueeze(0)), wanted), 1e-3);
}

// A prefix's rows stand for its tokens.
TEST_P(EachModel, PrefixIsTheFirstTokens) {
  const int64_t first = 3;
  std::map<std::string, Tensor> rows;
  Simulator simulator(model_, graph_);
  simulator.forward(tokens_.unsqueeze(0), [&](int site, const Tensor& value) {
    const Role role = graph_.site(site).role;
    if (role == Role::kKCache || role == Role::kVCache) {
      rows[graph_.site(site).name] = value[0].narrow(0, 0, first);
    }
    return value;
  });
  Network whole(model_, graph_, unrounded(torch::kFloat32));
  const Tensor wanted = logits(whole, tokens_.unsqueeze(0));
  model_.prefix.tokens.resize(first);
  model_.prefix.rows = rows;
  Network network(model_, graph_, unrounded(torch::kFloat32));
  const int64_t rest = tokens_.size(0) - first;
  const Tensor ours = logits(network, tokens_.narrow(0, first, rest).unsqueeze(0));
  EXPECT_LT(relative_difference(ours, wanted.narrow(0, first, rest)), 1e-4);
}

// Pass::backward in fp64 against finite differences along a direction of each group's weights: the
// gradient went through all layers above it.
TEST_P(EachModel, GradientsAreFiniteDifferences) {
  Network network(model_, graph_, unrounded(torch::kFloat64));
  FloatModel other = model_;
  other.weights.at("lm_head.weight") = torch::randn_like(other.weights.at("lm_head.weight"));
  Network teacher(other, graph_, unrounded(torch::kFloat64));
  const Tensor tokens = tokens_.narrow(0, 0, 8).view({2, 4});
  for (const Loss loss : {Loss::kCrossEntropy, Loss::kKl}) {
    Pass pass(network, teacher, loss);
    for (LinearGroup& group : network.groups()) {
      group.codes_grad = torch::zeros_like(group.codes);
    }
    pass.backward(tokens, 1.0);
    for (LinearGroup& group : network.groups()) {
      const Tensor direction = torch::randn_like(group.codes);
      const Tensor start = group.codes;
      const double step = 1e-5;
      group.codes = start + step * direction;
      const double up = pass.forward(tokens).sum;
      group.codes = start - step * direction;
      const double down = pass.forward(tokens).sum;
      group.codes = start;
      const double slope = (up - down) / (2 * step);
      const double ours = (group.codes_grad * direction).sum().item<double>();
      EXPECT_NEAR(ours, slope, 1e-6 * std::max(1.0, std::abs(slope)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, EachModel, testing::ValuesIn(tiny_models()), test_name);

}  // namespace
}  // namespace qnpu
