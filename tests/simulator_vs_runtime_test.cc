// The one place where learning and execution meet: for an artifact of each tiny model, the
// simulator (float, every site rounded to its grid) and the integer runtime read the same tokens,
// and are compared at every site, in two ways.
//
// Node by node: each node of the simulator gets the runtime's own inputs. What is left is how one
// operation rounds, and that is counted in steps of the site against what its law may do: one step
// at 8 bits; at 16 bits what the 256 units dropped from the accumulator are worth, and a few steps
// elsewhere. A wrong fold, pack, layout or scale is off by far more.
//
// Free running: the differences spread through the layers, each about the noise of the sites' own
// rounding: SQNR at every site, with a floor that only leaves room for these untrained models,
// whose ranges are filled badly; the perplexities must agree. (Trained models: the `model` tests.)
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "eval/metrics.h"
#include "eval/sqnr.h"
#include "io/test_folder.h"
#include "quant/fake_quant.h"
#include "quant/quantize.h"
#include "quant/test_models.h"
#include "runtime/session.h"

namespace qnpu {
namespace {

constexpr int kTokens = 96;

using SiteRows = std::map<int, std::vector<float>>;  // by site, flattened, visible values only

// Calls `visit` with a reference to every visible value, in the order of SiteRows: of scores
// [1, H, T, T] those of positions 0 .. t, of everything else all.
template <typename Visit>
void for_visible(const torch::Tensor& value, Role role, Visit visit) {
  float* data = value.data_ptr<float>();
  const int64_t cols = value.size(-1);
  for (int64_t row = 0; row < value.numel() / cols; ++row) {
    const int64_t visible = role == Role::kScores ? row % value.size(-2) + 1 : cols;
    for (int64_t c = 0; c < visible; ++c) visit(data[row * cols + c]);
  }
}

// The simulator's values. With `forced`, each site goes on with those values instead.
SiteRows simulate(const FloatModel& model, const Artifact& artifact,
                  const std::vector<int32_t>& tokens, const SiteRows* forced) {
  Simulator simulator(model, artifact.graph);
  set_artifact_weights(simulator, artifact);
  const SiteHook quantize = fake_quant_hook(artifact.graph);
  SiteRows rows;
  const SiteHook hook = [&](int site, const torch::Tensor& value) {
    const torch::Tensor rounded = quantize(site, value).contiguous();
    const Role role = artifact.graph.site(site).role;
    for_visible(rounded, role, [&](float x) { rows[site].push_back(x); });
    if (forced != nullptr) {
      const float* from = forced->at(site).data();
      for_visible(rounded, role, [&](float& x) { x = *from++; });
    }
    return rounded;
  };
  const std::vector<int64_t> ids(tokens.begin(), tokens.end());
  simulator.logits(simulator.forward(torch::tensor(ids).unsqueeze(0), hook)[0], hook);
  return rows;
}

double real_value(const SiteValues& values, const QParams& qparams, int64_t index) {
  int32_t q = 0;
  switch (qparams.dtype) {
    case DType::kS8:
      q = static_cast<const int8_t*>(values.data)[index];
      break;
    case DType::kU16:
      q = static_cast<const uint16_t*>(values.data)[index];
      break;
    default:
      q = static_cast<const int16_t*>(values.data)[index];
  }
  return static_cast<double>(qparams.scale[0]) * (q - qparams.zero_point[0]);
}

// The same order as in `simulate`: rows of tokens; of scores the visible ones.
std::vector<float> dequantize(const Graph& graph, const SiteValues& values) {
  const Site& site = graph.site(values.site);
  std::vector<float> out;
  const auto take = [&](int64_t index) {
    out.push_back(static_cast<float>(real_value(values, site.qparams, index)));
  };
  if (site.role == Role::kScores) {
    for (int64_t row = 0; row < int64_t{graph.config.num_heads} * values.tokens; ++row) {
      for (int64_t c = 0; c <= row % values.tokens; ++c) take(row * values.row_stride + c);
    }
    return out;
  }
  for (int64_t t = 0; t < values.tokens; ++t) {
    for (int64_t c = 0; c < site.cols; ++c) {
      const bool transposed = site.role == Role::kVCache;
      take(transposed ? c * values.row_stride + t : t * values.row_stride + c);
    }
  }
  return out;
}

SiteRows execute(const std::shared_ptr<const Artifact>& artifact,
                 const std::vector<int32_t>& tokens) {
  Session session(artifact, {.context = kTokens, .max_rows = kTokens, .threads = 1});
  SiteRows rows;
  session.set_trace(
      [&](const SiteValues& values) { rows[values.site] = dequantize(session.graph(), values); });
  session.run(tokens, /*all_rows=*/true);
  return rows;
}

double perplexity_of(const std::vector<float>& logits, const std::vector<int32_t>& tokens) {
  const size_t vocabulary = logits.size() / tokens.size();
  LikelihoodSum sum;
  for (size_t t = 0; t + 1 < tokens.size(); ++t) {
    sum.add({logits.data() + t * vocabulary, vocabulary}, tokens[t + 1]);
  }
  return sum.perplexity();
}

struct Case {
  std::string model;
  std::string recipe;
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const std::string& model : tiny_models()) {
    for (const char* recipe : {"w8a8kv8", "w4a8kv8", "w4a16kv8", "w4a8kv8-norot"}) {
      cases.push_back({model, recipe});
    }
  }
  return cases;
}

void PrintTo(const Case& c, std::ostream* out) { *out << c.model << " " << c.recipe; }

std::string case_name(const testing::TestParamInfo<Case>& info) {
  std::string name = info.param.model + "_" + info.param.recipe;
  for (char& c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
}

class SimulatorVsRuntime : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    QuantizeOptions options;
    options.model = tiny_model_folder(GetParam().model);
    options.recipe = load_recipe(source_folder() / "recipes" / (GetParam().recipe + ".json"));
    options.calibration = source_folder() / "LICENSE";
    options.samples = 8;
    options.length = kTokens;
    options.out = folder_.path() / "artifact";
    quantize(options);
    artifact_ = load_artifact(options.out);
    for (int t = 0; t < kTokens; ++t) tokens_.push_back((t * 37 + t * t) % 250);
  }

  TestFolder folder_;
  std::shared_ptr<const Artifact> artifact_;
  std::vector<int32_t> tokens_;
};

// Only its configuration and attention_scale matter: every weight is replaced by the artifact's.
FloatModel folded_model(const std::string& name) {
  FloatModel model = load_float_model(tiny_model_folder(name));
  fold_norms(model);
  return model;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::fabs(static_cast<double>(a[i]) - b[i]));
  }
  return largest;
}

// Steps of 16 bits by which a node's law may differ from real arithmetic (docs/numerics.md).
double allowed_steps16(const Artifact& artifact, const Node& node) {
  const auto scale = [&](int site) { return double{artifact.graph.site(site).qparams.scale[0]}; };
  switch (node.op) {
    case Op::kLinear: {  // 8 bits of the sum and 8 of the bias are dropped
      const auto scales =
          artifact.tensors.at(artifact.graph.site(node.weight).name + ".scale").as<float>();
      const double largest = *std::max_element(scales.begin(), scales.end());
      return 2.0 + 512.0 * scale(node.in[0]) * largest / scale(node.out);
    }
    case Op::kScores:
    case Op::kContext:
      return 2.0 + 256.0 * scale(node.in[0]) * scale(node.in[1]) / scale(node.out);
    case Op::kMul:  // the multiplier is an integer, which may be small
      return 2.0 + 32768.0 * 0.5 / std::get<MulLaw>(node.law).multiplier;
    case Op::kSoftmax:
      return 16.0;
    default:
      return 3.0;
  }
}

// Calls `compare` with each site and its two values, after checking that they can be compared.
template <typename Compare>
void for_sites(const Graph& graph, const SiteRows& simulated, const SiteRows& executed,
               Compare compare) {
  EXPECT_GT(executed.size(), 50u);
  for (const auto& [index, values] : executed) {
    const Site& site = graph.site(index);
    const auto found = simulated.find(index);
    ASSERT_NE(found, simulated.end()) << site.name;
    ASSERT_EQ(found->second.size(), values.size()) << site.name;
    compare(site, found->second, values);
  }
}

TEST_P(SimulatorVsRuntime, AgreeNodeByNode) {
  const FloatModel model = folded_model(GetParam().model);
  const SiteRows executed = execute(artifact_, tokens_);
  const SiteRows simulated = simulate(model, *artifact_, tokens_, &executed);
  std::map<std::string, double> allowed;  // by site written
  for (const Node& node : artifact_->graph.nodes) {
    const Site& out = artifact_->graph.site(node.out);
    const bool narrow = bitwidth(out.qparams.dtype) == 8;
    allowed[out.name] = narrow ? 1.0 : allowed_steps16(*artifact_, node);
  }
  for_sites(artifact_->graph, simulated, executed, [&](const Site& site, auto& a, auto& b) {
    const double steps = largest_difference(a, b) / site.qparams.scale[0];
    EXPECT_LE(steps, allowed.at(site.name) + 0.05) << site.name;  // 0.05: float32 of the simulator
  });
}

TEST_P(SimulatorVsRuntime, AgreeFreeRunning) {
  const FloatModel model = folded_model(GetParam().model);
  const SiteRows executed = execute(artifact_, tokens_);
  const SiteRows simulated = simulate(model, *artifact_, tokens_, nullptr);
  const double floor = GetParam().recipe == "w4a16kv8" ? 20.0 : 6.0;
  for_sites(artifact_->graph, simulated, executed, [&](const Site& site, auto& a, auto& b) {
    EXPECT_GE(sqnr_db(a, b), floor) << site.name;
  });
  const int logits = artifact_->graph.nodes.back().out;
  const double a = perplexity_of(simulated.at(logits), tokens_);
  const double b = perplexity_of(executed.at(logits), tokens_);
  EXPECT_NEAR(a / b, 1.0, 0.10);
}

INSTANTIATE_TEST_SUITE_P(TinyModels, SimulatorVsRuntime, testing::ValuesIn(all_cases()), case_name);

}  // namespace
}  // namespace qnpu
