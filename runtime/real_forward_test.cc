// The integer walk against a plain forward pass in doubles that shares no code with it: a wrong
// fold, transposition, head mapping, table or scale shows as a low SQNR at the first site it
// touches.
#include "runtime/testing/real_forward.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "io/test_folder.h"
#include "runtime/testing/random_artifact.h"
#include "runtime/testing/site_rows.h"

namespace qnpu {
namespace {

constexpr int kTokens = 48;

// The integers of a site in real numbers, laid out as real_forward does; the caches' first rows are
// the model's.
std::vector<double> site_as_reals(const testing::RealModel& model, const testing::SiteRows& rows,
                                  int site) {
  const Graph& graph = model.graph;
  const int prefix = graph.prefix_length();
  const int positions = prefix + kTokens;
  const QParams& params = graph.site(site).qparams;
  const auto real = [&](int16_t q) {
    const int value = params.dtype == DType::kU16 ? static_cast<uint16_t>(q) : q;
    return (value - params.zero_point.at(0)) * static_cast<double>(params.scale.at(0));
  };
  std::vector<double> out;
  if (graph.site(site).role != Role::kScores) {
    const auto constant = model.tensors.find(graph.site(site).name + ".prefix");
    if (constant != model.tensors.end()) out = constant->second;
    for (int p = prefix; p < positions; ++p) {
      for (const int16_t q : rows.at({site, p})) out.push_back(real(q));
    }
    return out;
  }
  out.resize(static_cast<size_t>(graph.config.num_heads) * kTokens * positions);
  for (int t = 0; t < kTokens; ++t) {
    const std::vector<int16_t>& row = rows.at({site, prefix + t});
    const int visible = prefix + t + 1;
    for (int h = 0; h < graph.config.num_heads; ++h) {
      for (int p = 0; p < visible; ++p)
        out[(h * kTokens + t) * positions + p] = real(row[h * visible + p]);
    }
  }
  return out;
}

// How far, in steps of the output, the law of a node may be from real arithmetic: half a step of
// rounding (a whole one where the law floors), and in 16-bit products the 8 accumulator bits that
// are dropped, twice where a bias is cut in the same way.
double allowed_steps(const Artifact& artifact, const Node& node) {
  const auto scale = [&](int site) { return artifact.graph.site(site).qparams.scale.at(0); };
  const bool wide = bitwidth(artifact.graph.site(node.out).qparams.dtype) == 16;
  double unit = 0.0;  // one step of the accumulator
  if (node.op == Op::kLinear && wide) {
    const auto scales =
        artifact.tensors.at(artifact.graph.site(node.weight).name + ".scale").as<float>();
    unit = scale(node.in[0]) * std::ranges::max(scales);
  } else if (node.op == Op::kScores) {
    unit = scale(node.in[0]) * scale(node.in[1]) / std::sqrt(artifact.graph.config.head_dim);
  } else if (node.op == Op::kContext) {
    unit = scale(node.in[0]) * scale(node.in[1]);
  }
  // Two steps that an exponential is cut by, one that its probability is; half a step of 8192 of
  // the reciprocal; and what all others in the sum are cut by.
  if (node.op == Op::kSoftmax) {
    return 2.0 + 1.0 + 4.0 + 2.0 * (kTokens + artifact.graph.prefix_length());
  }
  // 15-bit multipliers of 16-bit numbers.
  const bool short_factors = node.op == Op::kAdd || node.op == Op::kMask;
  return 1.1 + (short_factors ? 1.0 : 0.0) + 512.0 * unit / scale(node.out);
}

// A recipe that comes with the program, or w4a4: w4a8kv8 with 4-bit inputs where they can be.
Recipe recipe_of(const std::string& name) {
  const auto folder = std::filesystem::path(QNPU_SOURCE_DIR) / "recipes";
  if (name != "w4a4") return load_recipe(folder / (name + ".json"));
  Recipe recipe = load_recipe(folder / "w4a8kv8.json");
  for (const char* input : {"qkv_proj.in", "o_proj.in", "gate_up_proj.in"}) {
    recipe.rules.push_back({.match = std::string("layers.*.") + input, .bitwidth = 4});
  }
  return recipe;
}

// Architecture, recipe, number of prefix tokens.
using Case = std::tuple<std::string, std::string, int>;

class RealForwardTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const auto [architecture, recipe, prefix] = GetParam();
    testing::make_random_artifact(testing::tiny_config(architecture), recipe_of(recipe), 3,
                                  folder_.path(), /*positions=*/192, prefix);
    artifact_ = load_artifact(folder_.path());
    model_ = testing::dequantize(*artifact_);
    std::mt19937 random(5);
    for (int i = 0; i < kTokens; ++i) tokens_.push_back(random() % graph().config.vocab_size);
    Session session(artifact_, {.context = 64, .max_rows = 64, .threads = 1});
    const testing::SiteRows rows = testing::run_and_record(session, tokens_, kTokens);
    values_.resize(graph().sites.size());
    for (const Node& node : graph().nodes) {
      values_[static_cast<size_t>(node.out)] = site_as_reals(model_, rows, node.out);
    }
  }
  const Graph& graph() const { return artifact_->graph; }

  TestFolder folder_;
  std::shared_ptr<const Artifact> artifact_;
  testing::RealModel model_;
  std::vector<int32_t> tokens_;
  testing::RealValues values_;  // what the integer runtime computed
};

// Each node on the runtime's own inputs: errors do not add up, so the bound is tight.
TEST_P(RealForwardTest, EveryNodeIsWithinItsRounding) {
  for (const Node& node : graph().nodes) {
    const QParams& params = graph().site(node.out).qparams;
    const auto [qmin, qmax] = integer_range(params.dtype);
    const double scale = params.scale.at(0);
    const double low = (qmin - params.zero_point.at(0)) * scale;
    const double high = (qmax - params.zero_point.at(0)) * scale;
    const std::vector<double> wanted = testing::real_node(model_, tokens_, node, values_);
    const std::vector<double>& got = values_[static_cast<size_t>(node.out)];
    ASSERT_EQ(wanted.size(), got.size());
    double worst = 0.0;
    for (size_t i = 0; i < got.size(); ++i) {
      worst = std::max(worst, std::abs(got[i] - std::clamp(wanted[i], low, high)) / scale);
    }
    EXPECT_LE(worst, allowed_steps(*artifact_, node))
        << node.name << " (" << op_name(node.op) << ")";
  }
}

// The whole model: both round at every site, and single steps of 8-bit sites add up on the way. A
// step of a 4-bit site is a seventh of its range.
TEST_P(RealForwardTest, LogitsAreNearTheRealForward) {
  const auto reals = testing::real_forward(model_, tokens_, true);
  const auto logits = static_cast<size_t>(graph().nodes.back().out);
  const double db = testing::sqnr(reals[logits], values_[logits]);
  std::printf("SQNR of the logits: %.1f dB\n", db);
  const std::string& recipe = std::get<1>(GetParam());
  EXPECT_GT(db, recipe == "w4a16kv8" ? 30.0 : recipe == "w4a4" ? 6.0 : 18.0);
}

INSTANTIATE_TEST_SUITE_P(Models, RealForwardTest,
                         ::testing::Combine(::testing::Values("llama", "qwen2", "qwen3"),
                                            ::testing::Values("w8a8kv8", "w4a8kv8", "w4a16kv8",
                                                              "w4a4"),
                                            ::testing::Values(0, 3)));

}  // namespace
}  // namespace qnpu
