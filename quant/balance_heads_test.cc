// That the function is kept, and what the transforms are for.
#include "quant/balance_heads.h"

#include <gtest/gtest.h>

#include <cmath>

#include "quant/channel_maxima.h"
#include "quant/prefix.h"
#include "quant/test_models.h"

namespace qnpu {
namespace {

const std::vector<Window> kWindows = {{1, 5, 9, 2, 40, 7, 80, 81, 82, 3}, {3, 3, 60, 11, 12}};

class BalanceHeads : public testing::TestWithParam<std::string> {
 protected:
  BalanceHeads() {
    before_ = load_float_model(tiny_model_folder(GetParam()));
    fold_norms(before_);
    graph_ = build_graph(before_.config, Recipe{});
    before_.prefix = compute_prefix(before_, graph_, {7, 3});
    maxima_ = maxima_of(before_);
  }

  std::map<int, torch::Tensor> maxima_of(const FloatModel& model) const {
    return channel_maxima(model, graph_, kWindows, balance_sites(graph_, {true, true}), {});
  }
  FloatModel balanced(const BalanceHeadsSpec& spec) const {
    FloatModel model = before_;
    balance_heads(model, graph_, maxima_, spec);
    return model;
  }
  torch::Tensor of(const std::map<int, torch::Tensor>& maxima, const std::string& site) const {
    return maxima.at(graph_.find_site("layers.1.self_attn." + site)).to(torch::kFloat64);
  }

  FloatModel before_;
  Graph graph_;
  std::map<int, torch::Tensor> maxima_;
};

TEST_P(BalanceHeads, KeepsTheFunction) {
  const torch::Tensor tokens =
      load_golden(tiny_model_folder(GetParam()) / "golden.safetensors").tokens;
  Simulator plain(before_, graph_);
  const torch::Tensor expected = all_logits(plain, tokens);
  for (const BalanceHeadsSpec spec : {BalanceHeadsSpec{true, false}, {false, true}, {true, true}}) {
    const FloatModel model = balanced(spec);
    Simulator simulator(model, graph_);
    EXPECT_LE(relative_difference(all_logits(simulator, tokens), expected), 1e-4);
    const bool keys_moved = !torch::equal(model.prefix.rows.at("layers.1.self_attn.k_cache"),
                                          before_.prefix.rows.at("layers.1.self_attn.k_cache"));
    EXPECT_EQ(keys_moved, spec.keys);
  }
}

// Both maxima of a pair become the root of their product; with norms, whose gamma is shared, those
// of all heads together.
TEST_P(BalanceHeads, PairsOfKeysAndQueriesMeet) {
  const ModelConfig& config = before_.config;
  const auto pairs = [&](const torch::Tensor& maxima) {  // [KV or 1, hd / 2]
    const int64_t groups = config.qk_norm ? 1 : config.num_kv_heads;
    return maxima.reshape({groups, -1, 2, config.head_dim / 2}).amax(2).amax(1);
  };
  const auto after = maxima_of(balanced({true, false}));
  const torch::Tensor product = pairs(of(maxima_, "k_rope.out")) * pairs(of(maxima_, "q_rope.out"));
  for (const char* site : {"k_rope.out", "q_rope.out"}) {
    EXPECT_LE(relative_difference(pairs(of(after, site)), product.sqrt()), 1e-4) << site;
  }
}

TEST_P(BalanceHeads, ValueHeadsHaveOneMeanSquare) {
  const int64_t kv = before_.config.num_kv_heads, size = before_.config.head_dim;
  const auto mean_squares = [&](const torch::Tensor& maxima) {  // [KV]
    return maxima.reshape({kv, -1, size}).amax(1).square().mean(1);
  };
  const torch::Tensor after = mean_squares(of(maxima_of(balanced({false, true})), "o_proj.in"));
  EXPECT_LE(relative_difference(after, after.mean().expand_as(after)), 1e-3);
}

// sum_j s_j^2 |W_j|^2 * mean_j (m_j / s_j)^2 of a head is its smallest value, (sum_j m_j |W_j|)^2
// over the number of channels: no other s can do better.
TEST_P(BalanceHeads, ValueFactorsAreTheBest) {
  const int64_t kv = before_.config.num_kv_heads, size = before_.config.head_dim;
  const FloatModel model = balanced({false, true});
  const auto norms = [&](const FloatModel& m) {  // [KV, hd]
    const torch::Tensor& w = m.weights.at("layers.1.self_attn.o_proj.weight");
    return w.to(torch::kFloat64).square().sum(0).reshape({kv, -1, size}).sum(1).sqrt();
  };
  const torch::Tensor largest = of(maxima_, "o_proj.in").reshape({kv, -1, size}).amax(1);
  const torch::Tensor now = of(maxima_of(model), "o_proj.in").reshape({kv, -1, size}).amax(1);
  const torch::Tensor cost = norms(model).square().sum(1) * now.square().mean(1);
  const torch::Tensor best = (largest * norms(before_)).sum(1).square() / size;
  EXPECT_LE(relative_difference(cost, best), 1e-3);
}

INSTANTIATE_TEST_SUITE_P(TinyModels, BalanceHeads, testing::ValuesIn(tiny_models()), test_name);

}  // namespace
}  // namespace qnpu
