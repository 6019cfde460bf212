// Simulator, integer runtime and float checkpoint on SmolLM2-135M: a wrong fold, pack or scale
// would make them differ by far more than rounding does.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>

#include "eval/sqnr.h"
#include "io/files.h"
#include "io/test_folder.h"
#include "io/tokenizer.h"
#include "model/tokens.h"
#include "quant/quantize.h"
#include "quant/test_models.h"
#include "tests/compare_sites.h"

namespace qnpu {
namespace {

constexpr int kTokens = 512;

std::filesystem::path model_folder() { return source_folder() / "models" / "smollm2-135m"; }

struct Bounds {
  const char* recipe;
  double least_db, median_db;  // SQNR of all sites, runtime against simulator
  double logits_db;            // runtime's logits against the untouched checkpoint's
};

void PrintTo(const Bounds& b, std::ostream* out) { *out << b.recipe; }

struct Difference {
  double mean;
  double standard_error;
};

// Of the tokens' negative log likelihoods under two models, in nats.
Difference nll_difference(const std::vector<float>& a, const std::vector<float>& b,
                          const std::vector<int32_t>& tokens) {
  const size_t vocabulary = a.size() / tokens.size();
  const size_t count = tokens.size() - 1;
  double sum = 0.0;
  double squares = 0.0;
  for (size_t t = 0; t < count; ++t) {
    const double d =
        negative_log_likelihood({a.data() + t * vocabulary, vocabulary}, tokens[t + 1]) -
        negative_log_likelihood({b.data() + t * vocabulary, vocabulary}, tokens[t + 1]);
    sum += d;
    squares += d * d;
  }
  const double mean = sum / count;
  return {mean, std::sqrt((squares / count - mean * mean) / count)};
}

class SmolLm2Agreement : public testing::TestWithParam<Bounds> {
 protected:
  void SetUp() override {
    QuantizeOptions options;
    options.model = model_folder();
    options.recipe =
        load_recipe(source_folder() / "recipes" / (std::string(GetParam().recipe) + ".json"));
    options.calibration = {source_folder() / "LICENSE"};
    options.samples = 4;
    options.length = kTokens;
    options.out = folder_.path() / "artifact";
    quantize(options);
    artifact_ = load_artifact(options.out);
    const Tokenizer tokenizer = Tokenizer::load(model_folder());
    const std::vector<int> ids =
        token_sequence(tokenizer, read_file(source_folder() / "docs" / "numerics.md"));
    tokens_.assign(ids.begin(), ids.begin() + kTokens);
  }

  std::vector<float> float_logits(const FloatModel& model) const {
    const Graph graph = build_graph(model.config, Recipe{});
    Simulator simulator(model, graph);
    const std::vector<int64_t> ids(tokens_.begin(), tokens_.end());
    const torch::Tensor logits =
        simulator.logits(simulator.forward(torch::tensor(ids).unsqueeze(0))[0]).contiguous();
    return {logits.data_ptr<float>(), logits.data_ptr<float>() + logits.numel()};
  }

  TestFolder folder_;
  std::shared_ptr<const Artifact> artifact_;
  std::vector<int32_t> tokens_;
};

TEST_P(SmolLm2Agreement, FreeRunning) {
  FloatModel model = load_float_model(model_folder());
  const std::vector<float> original = float_logits(model);
  fold_norms(model);
  const SiteRows executed = execute(artifact_, tokens_);
  const SiteRows simulated = simulate(model, *artifact_, tokens_, nullptr);
  std::vector<double> db;
  for (const auto& [site, values] : executed) db.push_back(sqnr_db(simulated.at(site), values));
  std::sort(db.begin(), db.end());
  const int out = artifact_->graph.nodes.back().out;
  const double runtime = perplexity_of(executed.at(out), tokens_);
  const double simulator = perplexity_of(simulated.at(out), tokens_);
  const Difference nll = nll_difference(executed.at(out), simulated.at(out), tokens_);
  const double to_float = sqnr_db(original, executed.at(out));
  std::cout << GetParam().recipe << ": perplexity float " << perplexity_of(original, tokens_)
            << ", simulator " << simulator << ", runtime " << runtime << " (" << nll.mean << " +- "
            << nll.standard_error << " nats); SQNR of " << db.size() << " sites: least " << db[0]
            << ", median " << db[db.size() / 2] << " dB; logits against float " << to_float
            << " dB\n";
  EXPECT_GE(db[0], GetParam().least_db);
  EXPECT_GE(db[db.size() / 2], GetParam().median_db);
  EXPECT_LE(std::fabs(nll.mean), std::max(0.01, 3.0 * nll.standard_error));
  EXPECT_GE(to_float, GetParam().logits_db);
}

TEST_P(SmolLm2Agreement, NodeByNode) {
  FloatModel model = load_float_model(model_folder());
  fold_norms(model);
  tokens_.resize(128);
  const SiteRows executed = execute(artifact_, tokens_);
  const SiteRows simulated = simulate(model, *artifact_, tokens_, &executed);
  const std::map<std::string, double> allowed = allowed_steps(*artifact_);
  for (const auto& [index, values] : executed) {
    const Site& site = artifact_->graph.site(index);
    const double steps = largest_difference(simulated.at(index), values) / site.qparams.scale[0];
    EXPECT_LE(steps, allowed.at(site.name) + 0.05) << site.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Recipes, SmolLm2Agreement,
                         testing::Values(Bounds{"w4a16kv8", 10.0, 25.0, 9.0},
                                         Bounds{"w4a8kv8", 2.5, 10.0, 9.0},
                                         Bounds{"w8a8kv8", 2.5, 12.0, 11.0}),
                         [](const auto& info) { return std::string(info.param.recipe); });

}  // namespace
}  // namespace qnpu
