// Divergences against whole forward passes, the choice against all subsets.
#include "quant/choose_widths.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "io/test_folder.h"
#include "model/artifact.h"
#include "model/budget.h"
#include "quant/fake_quant.h"
#include "quant/prefix.h"
#include "quant/random.h"
#include "quant/ranges.h"
#include "quant/test_models.h"
#include "quant/weights.h"

namespace qnpu {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::vector<Window> kWindows = {{1, 5, 9, 2, 40, 7, 33, 250}, {3, 3, 60, 11, 12, 13, 0, 200}};

Recipe automatic(const std::string& budget) {
  Recipe recipe = load_recipe(source_folder() / "recipes/auto.json");
  recipe.budget = budget;
  return recipe;
}

class ChooseWidthsTest : public testing::TestWithParam<std::string> {
 protected:
  ChooseWidthsTest() {
    model_ = load_float_model(tiny_model_folder(GetParam()));
    fold_norms(model_);
    rotate(model_, recipe_.r1, recipe_.r2, 0);
    graph_ = build_graph(model_.config, recipe_);
    model_.prefix = compute_prefix(model_, graph_, {2});
    graph_.prefix_tokens = {2};
  }

  // Log probabilities [T, V] of a window, read alone and from its beginning.
  static torch::Tensor log_probabilities(const FloatModel& model, const Graph& graph,
                                         const Window& window, const SiteHook& hook) {
    Simulator simulator(model, graph);
    const std::vector<int64_t> ids(window.begin(), window.end());
    const torch::Tensor tokens = torch::tensor(ids, torch::kInt64).unsqueeze(0);
    const torch::Tensor logits = simulator.logits(simulator.forward(tokens, hook)[0]);
    return torch::log_softmax(logits.to(torch::kFloat64), -1);
  }

  double divergence(const FloatModel& changed, const SiteHook& hook = {}) const {
    double sum = 0.0;
    int64_t tokens = 0;
    for (const Window& window : kWindows) {
      const torch::Tensor p = log_probabilities(model_, graph_, window, {});
      const torch::Tensor q = log_probabilities(changed, graph_, window, hook);
      sum += (p.exp() * (p - q)).sum().item<double>();
      tokens += p.size(0);
    }
    return sum / static_cast<double>(tokens);
  }

  double rounding_weights(const std::vector<std::string>& names) const {
    FloatModel changed = model_;
    for (const std::string& name : names) {
      torch::Tensor& w = changed.weights.at(name);
      w = w.contiguous().clone();
      const Site& site = graph_.site(graph_.find_site(name));
      std::vector<float> scale(static_cast<size_t>(w.size(0)));
      weight_scales({w.data_ptr<float>(), w.size(0), w.size(1)}, site.spec, site.rotated,
                    scale.data());
      const torch::Tensor s = torch::tensor(scale).unsqueeze(1);
      w = torch::clamp(torch::round(w / s), -8, 7) * s;  // `auto` takes -8 too
    }
    return divergence(changed);
  }

  double rounding_inputs(int layer) const {
    Graph ranged = graph_;
    assign_ranges(ranged, calibrate(model_, graph_, kWindows, {}));
    std::map<int, QParams> rounded;
    for (const char* name : {"silu.out", "down_proj.in", "down_proj.out"}) {
      const int site = graph_.find_site(fmt::format("layers.{}.mlp.{}", layer, name));
      rounded[site] = ranged.site(site).qparams;
    }
    return divergence(model_, [&](int site, const torch::Tensor& value) {
      const auto found = rounded.find(site);
      return found == rounded.end() ? value : fake_quantized(value, found->second);
    });
  }

  Recipe recipe_ = automatic("16bit<=100%");
  FloatModel model_;
  Graph graph_;
};

TEST_P(ChooseWidthsTest, GroupsAreWhatReadsOneInput) {
  const std::vector<WidthGroup> groups = width_groups(recipe_, graph_);
  const auto layers = static_cast<size_t>(model_.config.num_layers);
  ASSERT_EQ(groups.size(), 5 * layers + 1);
  std::vector<std::string> names;
  for (size_t i = 0; i < 5; ++i) names.push_back(groups[i].name);
  EXPECT_THAT(names, ElementsAre("layers.0.self_attn.qkv_proj", "layers.0.self_attn.o_proj",
                                 "layers.0.mlp.gate_up_proj", "layers.0.mlp.down_proj",
                                 "layers.0.mlp.down_proj.in"));
  EXPECT_THAT(groups[0].sites,
              ElementsAre("layers.0.self_attn.q_proj.weight", "layers.0.self_attn.k_proj.weight",
                          "layers.0.self_attn.v_proj.weight"));
  EXPECT_EQ(groups.back().name, "lm_head");
  // Tensors begin at multiples of 64 bytes, and so the file's header may grow or shrink by some.
  const auto gap = 128.0;
  EXPECT_NEAR(groups.back().bytes, model_.weights.at("lm_head.weight").numel() / 2, gap);
  EXPECT_NEAR(groups[4].bytes, (65536 - 256) * 2, gap);  // SiLU's table
  EXPECT_EQ(width_groups(automatic("16bit<=0%"), graph_).size(), 4 * layers + 1);
}

TEST_P(ChooseWidthsTest, DivergencesAreThoseOfWholePasses) {
  std::vector<WidthGroup> groups = width_groups(recipe_, graph_);
  measure_divergences(groups, model_, recipe_, graph_, kWindows, {});
  for (const WidthGroup& group : groups) {
    const double wanted =
        group.wide_bits == 16 ? rounding_inputs(group.layer) : rounding_weights(group.sites);
    EXPECT_GT(wanted, 1e-6) << group.name;
    EXPECT_NEAR(group.divergence, wanted, 0.01 * wanted + 1e-7) << group.name;
  }
}

// The artifact gets the widths that were chosen, and is as large as was said.
TEST_P(ChooseWidthsTest, ChoiceBecomesRulesWithinTheBudget) {
  const Graph narrow = graph_;
  const int64_t smallest = smallest_bytes(recipe_, graph_, 64);
  EXPECT_EQ(smallest, tensor_file_bytes(narrow, 64));
  const int64_t limit = smallest + 30000;
  recipe_ = automatic(fmt::format("16bit<=0%,size<={}kB", limit / 1000));
  const size_t rules = recipe_.rules.size();
  const WidthChoice choice = choose_widths(model_, recipe_, graph_, kWindows, 64, {});
  EXPECT_LE(choice.bytes, limit);
  EXPECT_GT(choice.bytes, limit - 12000);  // no group but the head has more
  EXPECT_GT(recipe_.rules.size(), rules);
  const Graph again = build_graph(model_.config, recipe_);
  for (const WidthGroup& group : choice.groups) {
    for (const std::string& site : group.sites) {
      EXPECT_EQ(again.site(again.find_site(site)).spec.bitwidth, group.wide ? 8 : 4) << site;
    }
  }
  EXPECT_EQ(tensor_file_bytes(graph_, 64), choice.bytes);
}

INSTANTIATE_TEST_SUITE_P(TinyModels, ChooseWidthsTest, testing::ValuesIn(tiny_models()), test_name);

TEST(ChooseWidths, WithoutALimitEverythingIsWide) {
  std::vector<WidthGroup> groups = {{.bytes = 5, .divergence = 1e-9},
                                    {.wide_bits = 16, .bytes = 5, .divergence = 2.0},
                                    {.wide_bits = 16, .bytes = 5, .divergence = 3.0}};
  choose_groups(groups, std::numeric_limits<int64_t>::max(), 1);
  EXPECT_TRUE(groups[0].wide);
  EXPECT_FALSE(groups[1].wide);
  EXPECT_TRUE(groups[2].wide);
}

// One group as large as all others together: small ones before it must not keep it out.
TEST(ChooseWidths, ALargeGroupIsNotKeptOutBySmallOnes) {
  std::vector<WidthGroup> groups = {{.bytes = 100, .divergence = 9.0},
                                    {.bytes = 1, .divergence = 0.1}};
  choose_groups(groups, 100, 0);
  EXPECT_TRUE(groups[0].wide);
  EXPECT_FALSE(groups[1].wide);
}

struct Totals {
  int64_t bytes = 0;
  int inputs = 0;
  double divergence = 0.0;
};

Totals totals(const std::vector<WidthGroup>& groups, unsigned subset) {
  Totals sum;
  for (size_t i = 0; i < groups.size(); ++i) {
    if ((subset >> i & 1) == 0) continue;
    sum.bytes += groups[i].bytes;
    sum.inputs += groups[i].wide_bits == 16 ? 1 : 0;
    sum.divergence += groups[i].divergence;
  }
  return sum;
}

TEST(ChooseWidths, IsNearTheBestSubset) {
  SplitMix64 random(7);
  double worst = 1.0;
  double mean = 0.0;
  constexpr int kTrials = 200;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<WidthGroup> groups(10);
    for (WidthGroup& group : groups) {
      group.bytes = 1 + static_cast<int64_t>(random.below(20));
      group.wide_bits = random.below(3) == 0 ? 16 : 8;
      group.divergence = std::exp(4.0 * random.uniform());
    }
    const auto limit = static_cast<int64_t>(10 + random.below(80));
    const auto inputs = static_cast<int>(random.below(3));
    double best = 0.0;
    for (unsigned subset = 0; subset < 1u << groups.size(); ++subset) {
      const Totals sum = totals(groups, subset);
      if (sum.bytes <= limit && sum.inputs <= inputs) best = std::max(best, sum.divergence);
    }
    choose_groups(groups, limit, inputs);
    unsigned chosen = 0;
    for (size_t i = 0; i < groups.size(); ++i) chosen |= groups[i].wide ? 1u << i : 0u;
    const Totals sum = totals(groups, chosen);
    EXPECT_LE(sum.bytes, limit);
    EXPECT_LE(sum.inputs, inputs);
    worst = std::min(worst, best > 0.0 ? sum.divergence / best : 1.0);
    mean += best > 0.0 ? sum.divergence / best / kTrials : 1.0 / kTrials;
  }
  EXPECT_GT(worst, 0.5);
  EXPECT_GT(mean, 0.95);
}

TEST(ChooseWidths, TooSmallABudgetIsToldTheSmallest) {
  const ModelConfig config = load_config(tiny_model_folder("tiny-llama") / "config.json");
  Recipe recipe = automatic("size<=20kB");
  const Graph graph = build_graph(config, recipe);
  const std::string smallest = budget_size(tensor_file_bytes(graph, 64));
  EXPECT_THAT(error_of([&] { smallest_bytes(recipe, graph, 64); }),
              HasSubstr("at least size<=" + smallest));
  recipe.budget = "size<=" + smallest;
  EXPECT_EQ(smallest_bytes(recipe, graph, 64), tensor_file_bytes(graph, 64));
}

TEST(ChooseWidths, TableHasARowForEachKind) {
  WidthChoice choice;
  choice.bytes = 1'500'000;
  choice.smallest_bytes = 1'000'000;
  choice.groups = {{.name = "layers.0.mlp.down_proj", .layer = 0, .divergence = 0.5, .wide = true},
                   {.name = "layers.1.mlp.down_proj", .layer = 1, .divergence = 0.25},
                   {.name = "lm_head", .divergence = 0.125}};
  const std::string table = width_table(choice, "size<=1.5MB");
  EXPECT_THAT(table, HasSubstr("size<=1.5MB: 1.5MB"));
  EXPECT_THAT(table, HasSubstr("0.7500 0.2500   #-\n"));
  EXPECT_THAT(table, HasSubstr("0.1250 0.1250   -\n"));
}

}  // namespace
}  // namespace qnpu
