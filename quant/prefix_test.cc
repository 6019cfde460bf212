// A prefix in the float model: nothing but a shorter way to read its tokens first.
#include "quant/prefix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/status.h"
#include "io/test_folder.h"
#include "model/artifact.h"
#include "quant/calibrate.h"
#include "quant/freeze.h"
#include "quant/ranges.h"
#include "quant/test_models.h"

namespace qnpu {
namespace {

const std::vector<int> kPrefix = {7, 0, 41};
const int kLength = static_cast<int>(kPrefix.size());

bool is_cache(const Site& site) { return site.role == Role::kKCache || site.role == Role::kVCache; }

class PrefixTest : public testing::TestWithParam<std::string> {
 protected:
  PrefixTest() : model_(load_float_model(tiny_model_folder(GetParam()))) {
    graph_ = build_graph(model_.config, Recipe{});
    const Golden golden = load_golden(tiny_model_folder(GetParam()) / "golden.safetensors");
    tokens_ = golden.tokens.narrow(0, 0, 24);
  }

  // `model` with the prefix, which must not have one yet.
  FloatModel prefixed(FloatModel model) const {
    model.prefix = compute_prefix(model, graph_, kPrefix);
    return model;
  }

  // Logits [T, V] of the tokens behind those of the prefix, by a model without one.
  torch::Tensor logits_behind_tokens() const {
    const std::vector<int64_t> first(kPrefix.begin(), kPrefix.end());
    Simulator simulator(model_, graph_);
    const torch::Tensor all =
        all_logits(simulator, torch::cat({torch::tensor(first, torch::kInt64), tokens_}));
    return all.narrow(0, kLength, tokens_.size(0));
  }

  FloatModel model_;
  Graph graph_;
  torch::Tensor tokens_;  // [T]
};

TEST_P(PrefixTest, EqualsItsTokensReadBefore) {
  const torch::Tensor wanted = logits_behind_tokens();
  const FloatModel model = prefixed(model_);
  EXPECT_EQ(model.prefix.tokens, kPrefix);
  Simulator simulator(model, graph_);
  EXPECT_EQ(simulator.position(), kLength);
  EXPECT_LE(max_difference(all_logits(simulator, tokens_), wanted), 1e-4);
  EXPECT_EQ(simulator.position(), kLength + tokens_.size(0));
  simulator.reset();
  EXPECT_EQ(simulator.position(), kLength);
  std::vector<torch::Tensor> rows;  // step by step
  for (int64_t t = 0; t < tokens_.size(0); ++t) {
    rows.push_back(all_logits(simulator, tokens_.narrow(0, t, 1)));
  }
  EXPECT_LE(max_difference(torch::cat(rows, 0), wanted), 1e-4);
  simulator.set_prefix({});
  EXPECT_EQ(simulator.position(), 0);
  EXPECT_GT(max_difference(all_logits(simulator, tokens_), wanted), 1e-2);
}

// Computed before or after the model is prepared.
TEST_P(PrefixTest, FoldingAndRotatingKeepIt) {
  const torch::Tensor wanted = logits_behind_tokens();
  FloatModel before = prefixed(model_);
  FloatModel after = model_;
  for (FloatModel* model : {&before, &after}) {
    fold_norms(*model);
    rotate(*model, Rotation::kHadamard, Rotation::kHadamard, 3);
  }
  after = prefixed(std::move(after));
  for (const FloatModel* model : {&before, &after}) {
    Simulator simulator(*model, graph_);
    EXPECT_LE(max_difference(all_logits(simulator, tokens_), wanted), 1e-3);
  }
}

TEST_P(PrefixTest, EachSequenceOfABatchHasIt) {
  const FloatModel model = prefixed(model_);
  const int64_t half = tokens_.size(0) / 2;
  Simulator simulator(model, graph_);
  const torch::Tensor hidden = simulator.forward(tokens_.view({2, half}));
  for (int row = 0; row < 2; ++row) {
    Simulator single(model, graph_);
    const torch::Tensor alone = single.forward(tokens_.narrow(0, row * half, half).unsqueeze(0));
    EXPECT_LE(max_difference(hidden[row], alone[0]), 1e-5);
  }
}

// Once in a sequence, before its first rows; what the hook returns is what the tokens see.
TEST_P(PrefixTest, TheHookSeesItOnce) {
  const FloatModel model = prefixed(model_);
  std::map<int, std::vector<int64_t>> rows;  // of each call, by cache
  const SiteHook hook = [&](int site, const torch::Tensor& value) {
    if (!is_cache(graph_.site(site))) return value;
    rows[site].push_back(value.size(1));
    const bool first = rows[site].size() == 1;
    EXPECT_TRUE(!first || torch::equal(value[0], model.prefix.rows.at(graph_.site(site).name)));
    return first ? value * 0.5 + 0.1 : value;
  };
  Simulator simulator(model, graph_);
  const torch::Tensor changed = simulator.forward(tokens_.view({2, -1}), hook);
  simulator.forward(tokens_.view({2, -1}), hook);
  EXPECT_EQ(rows.size(), 2u * model.config.num_layers);
  const int64_t half = tokens_.size(0) / 2;
  for (const auto& [site, calls] : rows) {
    EXPECT_THAT(calls, testing::ElementsAre(kLength, half, half)) << graph_.site(site).name;
  }
  simulator.reset();
  EXPECT_GT(max_difference(simulator.forward(tokens_.view({2, -1})), changed), 1e-2);
}

TEST_P(PrefixTest, OldPrefixIsNotLookedAt) {
  const FloatModel model = prefixed(model_);
  const Prefix again = compute_prefix(model, graph_, kPrefix);
  for (const auto& [name, rows] : model.prefix.rows) {
    EXPECT_TRUE(torch::equal(rows, again.rows.at(name))) << name;
  }
}

// Integers of the caches' own scales, which cover them.
TEST_P(PrefixTest, FrozenRowsAreTheRoundedOnes) {
  FloatModel folded = model_;
  fold_norms(folded);
  FloatModel model = prefixed(std::move(folded));
  model.prefix.rows.at("layers.0.self_attn.v_cache")[0][0] = 50.0f;
  Graph graph = graph_;
  const auto ids = tokens_.data_ptr<int64_t>();
  assign_ranges(graph, calibrate(model, graph, {Window(ids, ids + tokens_.size(0))}, {}));
  const TestFolder folder;
  freeze(model, graph, folder.path(), nlohmann::json::object());
  const auto artifact = load_artifact(folder.path());
  EXPECT_EQ(artifact->graph.prefix_tokens, kPrefix);
  int caches = 0;
  for (const Site& site : artifact->graph.sites) {
    if (!is_cache(site)) continue;
    ++caches;
    const auto q = artifact->tensors.at(site.name + ".prefix").as<int8_t>();
    const torch::Tensor rows = model.prefix.rows.at(site.name).contiguous();
    ASSERT_EQ(static_cast<int64_t>(q.size()), rows.numel());
    for (int64_t i = 0; i < rows.numel(); ++i) {
      const double steps = rows.data_ptr<float>()[i] / static_cast<double>(site.qparams.scale[0]);
      ASSERT_EQ(q[i], std::min(127.0, std::floor(steps + 0.5))) << site.name;
      ASSERT_LE(std::fabs(steps), 127.5);
    }
  }
  EXPECT_EQ(caches, 2 * model.config.num_layers);
}

INSTANTIATE_TEST_SUITE_P(All, PrefixTest, testing::ValuesIn(tiny_models()), test_name);

TEST(ComputePrefix, NoTokensNoPrefix) {
  const FloatModel model = load_float_model(tiny_model_folder("tiny-llama"));
  const Graph graph = build_graph(model.config, Recipe{});
  EXPECT_TRUE(compute_prefix(model, graph, {}).rows.empty());
  EXPECT_THAT(error_of([&] { compute_prefix(model, graph, {model.config.vocab_size}); }),
              testing::HasSubstr("outside the model's vocabulary"));
}

}  // namespace
}  // namespace qnpu
