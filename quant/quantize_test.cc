// The pipeline on the tiny models: what an artifact holds, that it is the same bytes every time,
// and that errors and stops leave nothing behind.
#include "quant/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "io/files.h"
#include "io/test_folder.h"
#include "io/tokenizer.h"
#include "model/artifact.h"
#include "model/laws.h"
#include "quant/calibrate.h"
#include "quant/choose_widths.h"
#include "quant/sample_text.h"
#include "quant/test_run.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

QuantizeOptions options_for(const std::string& model, const fs::path& out) {
  return test_run(model, test_recipe("w4a8kv8"), out);
}

std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    files[entry.path().filename()] = read_file(entry.path());
  }
  return files;
}

class QuantizeTest : public testing::TestWithParam<std::string> {};

void expect_snapped(double m, const std::string& what) {
  EXPECT_NEAR(m / snap_multiplier(m), 1.0, 0x1p-23) << what;  // a float's step
}

double scale_at(const Artifact& artifact, int site) { return scale_of(artifact.graph, site); }

void check_linear(const Artifact& artifact, const Node& node) {
  const double x = scale_at(artifact, node.in[0]);
  const double y = scale_at(artifact, node.out);
  const auto scales =
      artifact.tensors.at(artifact.graph.site(node.weight).name + ".scale").as<float>();
  const auto mantissas = artifact.tensors.at(node.name + ".multiplier").as<int32_t>();
  const bool wide = bitwidth(artifact.graph.site(node.out).qparams.dtype) == 16;
  for (size_t n = 0; n < scales.size(); ++n) {
    const double m = x * scales[n] / y;
    expect_snapped(m, node.name);
    const double snapped = snap_multiplier(m);
    ASSERT_EQ(mantissas[n], (wide ? make_requant16(snapped) : make_requant8(snapped)).mantissa);
  }
}

void check_sum(const Artifact& artifact, const Node& node) {
  for (const int in : node.in) {
    const double ratio = scale_at(artifact, in) / scale_at(artifact, node.out);
    EXPECT_TRUE(ratio == 1.0 || std::fabs(ratio - 1.0) >= 0x1p-12) << node.name;
  }
}

void check_product(const Artifact& artifact, const Node& node) {
  const double m = scale_at(artifact, node.in[0]) * scale_at(artifact, node.in[1]) /
                   scale_at(artifact, node.out);
  expect_snapped(m, node.name);
  const Requant expected = make_requant16(snap_multiplier(m));
  ASSERT_TRUE(std::holds_alternative<Requant>(node.law)) << node.name;
  EXPECT_EQ(std::get<Requant>(node.law).mantissa, expected.mantissa);
  EXPECT_EQ(std::get<Requant>(node.law).shift, expected.shift);
}

// From the artifact alone: every multiplier has 12 significant bits, ties are exact in float32.
TEST_P(QuantizeTest, MultipliersAreSnappedAndTiesExact) {
  for (const char* recipe : {"w4a8kv8", "w4a16kv8", "w8a8kv8", "w4a8kv8-norot"}) {
    const TestFolder folder;
    QuantizeOptions options = options_for(GetParam(), folder.path() / "out");
    options.recipe = test_recipe(recipe);
    quantize(options);
    const auto artifact = load_artifact(options.out);
    for (const Node& node : artifact->graph.nodes) {
      if (node.op == Op::kLinear) check_linear(*artifact, node);
      if (node.op == Op::kAdd) check_sum(*artifact, node);
      if (node.op == Op::kScores || node.op == Op::kContext) check_product(*artifact, node);
    }
    for (size_t i = 0; i < artifact->graph.sites.size(); ++i) {
      const Site& site = artifact->graph.sites[i];
      if (site.role == Role::kWeight) continue;
      const TieRoot root = tie_root(artifact->graph, static_cast<int>(i));
      EXPECT_EQ(scale_at(*artifact, static_cast<int>(i)),
                scale_at(*artifact, root.site) * root.ratio)
          << site.name;
    }
  }
}

TEST_P(QuantizeTest, ReportNamesEverySiteAndWeight) {
  const TestFolder folder;
  const QuantizeOptions options = options_for(GetParam(), folder.path() / "out");
  const QuantizeResult result = quantize(options);
  EXPECT_EQ(result.calibration_windows, 2);
  EXPECT_EQ(result.calibration_tokens, 96);
  EXPECT_GT(result.peak_bytes, 0);
  EXPECT_GT(result.size_bytes, 0);
  for (const char* step : {"load", "rotate", "calibrate", "freeze", "total"}) {
    EXPECT_TRUE(result.seconds.count(step)) << step;
  }
  const auto artifact = load_artifact(options.out);
  const nlohmann::json report = read_json(options.out / "report.json");
  std::set<std::string> names;
  for (const auto& site : report["sites"]) names.insert(site["name"].get<std::string>());
  for (const auto& weight : report["weights"]) {
    names.insert(weight["name"].get<std::string>());
    EXPECT_GT(weight["sqnr"].get<double>(), weight["bits"] == 4 ? 12.0 : 35.0) << weight;
  }
  for (const Site& site : artifact->graph.sites) EXPECT_TRUE(names.count(site.name)) << site.name;
  EXPECT_TRUE(fs::exists(options.out / "tokenizer.json"));
}

INSTANTIATE_TEST_SUITE_P(TinyModels, QuantizeTest, testing::ValuesIn(tiny_models()), test_name);

TEST(Quantize, SameInputsGiveTheSameBytes) {
  const TestFolder folder;
  QuantizeOptions options = options_for("tiny-llama", folder.path() / "a");
  options.calibration.clear();  // sampled: the whole way is repeated
  quantize(options);
  options.out = folder.path() / "b";
  quantize(options);
  EXPECT_EQ(contents(folder.path() / "a"), contents(folder.path() / "b"));
  EXPECT_TRUE(fs::exists(folder.path() / "a" / "calibration.txt"));
  options.out = folder.path() / "c";
  options.seed = 1;
  quantize(options);
  EXPECT_NE(read_file(folder.path() / "a" / "calibration.txt"),
            read_file(folder.path() / "c" / "calibration.txt"));
}

// As one more text: half of the windows where one is given.
TEST(Quantize, ItsOwnTextBesideAGivenOne) {
  const TestFolder folder;
  QuantizeOptions options = options_for("tiny-llama", folder.path() / "out");
  options.recipe.sample = SampleSpec{200};
  options.samples = 6;
  EXPECT_EQ(quantize(options).calibration_windows, 6);
  const Tokenizer tokenizer = Tokenizer::load(options.model);
  const std::string text = read_file(options.out / "calibration.txt");
  EXPECT_GE(tokenizer.encode(text, false).size(), 200u);
  const nlohmann::json report = read_json(options.out / "report.json");
  EXPECT_EQ(report["calibration"]["source"], "both");
  QuantizeOptions alone = options_for("tiny-llama", folder.path() / "alone");
  alone.samples = 6;
  quantize(alone);
  EXPECT_NE(read_json(alone.out / "report.json")["sites"], report["sites"]);
}

TEST(Quantize, BlocksAreFourBitsInBytes) {
  const TestFolder folder;
  QuantizeOptions options = options_for("tiny-llama", folder.path() / "out");
  options.recipe = test_recipe("executorch-w4a16-block");
  quantize(options);
  const auto artifact = load_artifact(options.out);
  const std::string name = "layers.1.mlp.gate_proj.weight";
  const auto q = artifact->tensors.at(name).as<int8_t>();
  EXPECT_LE(*std::max_element(q.begin(), q.end()), 112);
  EXPECT_GT(*std::max_element(q.begin(), q.end()), 7);
  const nlohmann::json report = read_json(options.out / "report.json");
  for (const auto& weight : report["weights"]) {
    if (weight["name"] != name) continue;
    EXPECT_EQ(weight["bits"], 4);
    EXPECT_EQ(weight["block_size"], 32);
    const float* w = nullptr;
    const FloatModel model = load_float_model(options.model);
    FloatModel folded = model;
    fold_norms(folded);
    w = folded.weights.at(name).data_ptr<float>();
    const auto scale = artifact->tensors.at(name + ".scale").as<float>();
    double signal = 0.0;
    double noise = 0.0;
    for (size_t i = 0; i < q.size(); ++i) {
      const double error = w[i] - double{scale[i / 64]} * q[i];
      signal += double{w[i]} * w[i];
      noise += error * error;
    }
    EXPECT_NEAR(weight["sqnr"], 10 * std::log10(signal / noise), 1e-3);
  }
}

TEST(Quantize, SmoothMakesRangesNarrower) {
  const TestFolder folder;
  QuantizeOptions options = options_for("tiny-llama", folder.path() / "out");
  const auto scales = [&](const char* recipe) {
    options.recipe = test_recipe(recipe);
    quantize(options);
    const auto artifact = load_artifact(options.out);
    return std::pair(artifact->graph,
                     artifact->tensors.at("layers.0.input_layernorm.weight").as<int16_t>()[0]);
  };
  const auto plain = scales("rtn-w8a8");
  const auto smoothed = scales("smoothquant-w8a8");
  const int site = plain.first.find_site("layers.1.self_attn.qkv_proj.in");
  EXPECT_NE(plain.first.site(site).qparams.scale, smoothed.first.site(site).qparams.scale);
  EXPECT_EQ(plain.second, 32767);  // gamma is one everywhere
}

TEST(Quantize, BalancesHeadsIfTheRecipeSaysSo) {
  const TestFolder folder;
  QuantizeOptions options = options_for("tiny-qwen2", folder.path() / "out");
  options.recipe = test_recipe("w8a8kv8");
  const auto scale = [&](const char* site) {
    quantize(options);
    const auto artifact = load_artifact(options.out);
    return artifact->graph.site(artifact->graph.find_site(site)).qparams.scale;
  };
  const char* keys = "layers.0.self_attn.k_cache";
  const char* values = "layers.0.self_attn.v_cache";
  const auto plain_keys = scale(keys), plain_values = scale(values);
  options.recipe.balance_heads = BalanceHeadsSpec{.keys = true, .values = false};
  EXPECT_NE(scale(keys), plain_keys);
  options.recipe.balance_heads = BalanceHeadsSpec{.keys = false, .values = true};
  EXPECT_EQ(scale(keys), plain_keys);
  EXPECT_NE(scale(values), plain_values);
}

TEST(Quantize, FlattenedWeightsHaveMoreSqnr) {
  const TestFolder folder;
  QuantizeOptions options = options_for("tiny-llama", folder.path() / "out");
  options.recipe = test_recipe("w4a8kv8");
  const auto mean_sqnr = [&] {
    quantize(options);
    double sum = 0.0;
    const nlohmann::json report = read_json(options.out / "report.json");
    for (const auto& weight : report["weights"]) sum += weight["sqnr"].get<double>();
    return sum / static_cast<double>(report["weights"].size());
  };
  const double plain = mean_sqnr();
  options.recipe.flatten = FlattenSpec{};
  EXPECT_GT(mean_sqnr(), plain + 0.1);
  const nlohmann::json powers = read_json(options.out / "report.json")["flatten"]["fourth_powers"];
  EXPECT_LT(powers[1].get<double>(), powers[0].get<double>());
}

TEST(Quantize, FlattenWithoutAnythingToTurnOrRoundIsRefused) {
  const TestFolder folder;
  QuantizeOptions options = options_for("tiny-llama", folder.path() / "out");
  options.recipe = test_recipe("w8a8kv8");
  options.recipe.flatten = FlattenSpec{};
  EXPECT_THAT(error_of([&] { quantize(options); }), HasSubstr("for 4-bit weights"));
  options.recipe = test_recipe("w4a8kv8-norot");
  options.recipe.flatten = FlattenSpec{};
  EXPECT_THAT(error_of([&] { quantize(options); }), HasSubstr("both are none"));
}

TEST(Quantize, SensitivityWidensTheChosenLayers) {
  const TestFolder folder;
  QuantizeOptions options = options_for("tiny-llama", folder.path() / "out");
  options.recipe.sensitivity = SensitivitySpec{0.5};
  quantize(options);
  const nlohmann::json chosen = read_json(options.out / "report.json")["sensitivity"];
  ASSERT_EQ(chosen["ratios"].size(), 2u);
  ASSERT_EQ(chosen["layers"].size(), 1u);
  const auto artifact = load_artifact(options.out);
  for (int layer : {0, 1}) {
    const std::string name = fmt::format("layers.{}.mlp.down_proj.in", layer);
    const Site& site = artifact->graph.site(artifact->graph.find_site(name));
    const bool wide = chosen["layers"][0] == layer;
    EXPECT_EQ(site.qparams.dtype, wide ? DType::kS16 : DType::kS8);
    EXPECT_EQ(chosen["ratios"][layer] >= chosen["ratios"][1 - layer], wide);
    const Recipe recipe = recipe_from_json(artifact->manifest["recipe"], "");
    EXPECT_EQ(recipe.rules.at(wide ? site.rule : 0).match, wide ? name : "*_proj.weight");
  }
}

// What was foreseen from widths alone is the size of the file.
TEST_P(QuantizeTest, SizeIsForeseen) {
  for (const char* recipe : {"fast", "w8a8kv8", "rtn-w4a4"}) {
    const TestFolder folder;
    QuantizeOptions options = options_for(GetParam(), folder.path() / "out");
    options.recipe = test_recipe(recipe);
    quantize(options);
    const auto artifact = load_artifact(options.out);
    EXPECT_EQ(tensor_file_bytes(artifact->graph, artifact->positions),
              static_cast<int64_t>(fs::file_size(options.out / "model.safetensors")))
        << recipe;
  }
}

// Half of what the widths can add, and 16 bits for the input of one of two down_proj.
TEST_P(QuantizeTest, WidthsStayWithinTheBudget) {
  const TestFolder folder;
  QuantizeOptions options = options_for(GetParam(), folder.path() / "out");
  options.recipe = test_recipe("auto");
  Graph graph = build_graph(load_config(options.model / "config.json"), options.recipe);
  const int positions = std::min(8192, graph.config.max_positions);
  const int64_t smallest = smallest_bytes(options.recipe, graph, positions);
  const int64_t limit = smallest + 131'000 + 20'000;
  options.recipe.budget = fmt::format("16bit<=50%,size<={}kB", limit / 1000);
  std::vector<std::string> said;
  options.say = [&](const std::string& text) { said.push_back(text); };
  const QuantizeResult result = quantize(options);
  ASSERT_EQ(said.size(), 2u);
  EXPECT_THAT(said[0], HasSubstr("expected: about"));
  EXPECT_EQ(said[1], result.widths);
  EXPECT_GT(result.expected_seconds, 0.0);
  EXPECT_GT(result.expected_peak_bytes, 0);
  const auto bytes = static_cast<int64_t>(fs::file_size(options.out / "model.safetensors"));
  const nlohmann::json widths = read_json(options.out / "report.json")["widths"];
  EXPECT_EQ(widths["bytes"], bytes);
  EXPECT_LE(bytes, limit);
  EXPECT_GT(bytes, smallest);
  const auto artifact = load_artifact(options.out);
  int inputs = 0;
  for (const auto& group : widths["groups"]) {
    const auto name = group["name"].get<std::string>();
    EXPECT_GT(group["divergence"].get<double>(), 0.0) << name;
    if (!name.ends_with(".in")) continue;
    const int site = artifact->graph.find_site(name);
    EXPECT_EQ(bitwidth(artifact->graph.site(site).qparams.dtype), group["bits"]);
    inputs += group["bits"] == 16 ? 1 : 0;
  }
  EXPECT_LE(inputs, 1);
  const Recipe recipe = recipe_from_json(artifact->manifest["recipe"], "");
  EXPECT_EQ(recipe.budget, options.recipe.budget);
  EXPECT_GT(recipe.rules.size(), options.recipe.rules.size());
}

TEST(Quantize, StopLeavesNothingBehind) {
  const TestFolder folder;
  QuantizeOptions options = options_for("tiny-llama", folder.path() / "out");
  quantize(options);
  const auto before = contents(options.out);
  for (const char* step : {"load", "rotate", "calibrate", "freeze"}) {
    options.progress = [&](const std::string& name, int, int) {
      if (name == step) fail("stopped");
    };
    EXPECT_EQ(error_of([&] { quantize(options); }), "stopped") << step;
    EXPECT_EQ(contents(options.out), before);
    EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1) << step;
  }
}

// Stage one, rounding layer by layer, and tuning.
Recipe learning_recipe() {
  Recipe recipe = test_recipe("fast");
  recipe.learn.emplace();
  recipe.learn->rotations = recipe.learn->input_scales = recipe.learn->weight_scales = true;
  recipe.tune.emplace();
  recipe.tune->weights = recipe.tune->input_scales = recipe.tune->quantize_outputs = true;
  recipe.tune->loss = Loss::kKl;
  recipe.tune->optimizer = Optimizer::kAdam;
  for (LearnSpec* spec : {&*recipe.learn, &*recipe.tune}) {
    spec->steps = 20;
    spec->length = 24;
  }
  return recipe;
}

TEST(Quantize, LearningGoesOnWhereItStopped) {
  const TestFolder folder;
  QuantizeOptions options = options_for("tiny-llama", folder.path() / "whole");
  options.recipe = learning_recipe();
  quantize(options);
  const auto whole = contents(options.out);
  const nlohmann::json report = read_json(options.out / "report.json");
  for (const char* section : {"learn", "tune"}) {
    EXPECT_EQ(report[section]["losses"].size(), 20u);
    EXPECT_EQ(report[section]["held_out"][0]["text"], "LICENSE");
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);  // no work folder

  options.out = folder.path() / "stopped";
  for (const char* section : {"learn", "tune"}) {
    int first = 0;
    options.progress = [&](const std::string& step, int done, int) {
      if (step == section && done == 18) fail("stopped");
      if (step == "learn" && done > 0 && first == 0) first = done;
    };
    EXPECT_EQ(error_of([&] { quantize(options); }), "stopped");
    EXPECT_FALSE(fs::exists(options.out));
    EXPECT_EQ(first, section == std::string("learn") ? 1 : 17);  // a state each 16 steps
  }
  options.progress = {};
  QuantizeOptions other = options;
  other.recipe.tune->lr_weights *= 2;
  EXPECT_THAT(error_of([&] { quantize(other); }), HasSubstr("another run"));
  quantize(options);
  EXPECT_EQ(contents(options.out), whole);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 2);
}

// With two short steps instead of its own.
QuantizeOptions shortened(const std::string& recipe, const fs::path& out) {
  QuantizeOptions options = options_for("tiny-llama", out);
  options.recipe = test_recipe(recipe);
  for (auto* section : {&options.recipe.learn, &options.recipe.tune}) {
    if (!*section) continue;
    LearnSpec& spec = **section;
    spec.steps = 2;
    spec.sequences = 1;
    spec.length = 24;
    spec.local_steps = std::min(spec.local_steps, 1);
    spec.warmup = std::min(spec.warmup, 1);
  }
  return options;
}

TEST(Quantize, EveryLearningRecipeRuns) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(source_folder() / "recipes")) {
    const std::string name = entry.path().stem();
    SCOPED_TRACE(name);
    const TestFolder folder;
    const QuantizeOptions options = shortened(name, folder.path() / "out");
    EXPECT_EQ(options.recipe.name, name);
    if (!options.recipe.learn && !options.recipe.tune) continue;
    quantize(options);
    const auto artifact = load_artifact(options.out);
    EXPECT_EQ(artifact->manifest.value("deployable", true), options.recipe.deployable());
    const nlohmann::json report = read_json(options.out / "report.json");
    EXPECT_EQ(report.contains("learn"), options.recipe.learn.has_value());
    EXPECT_EQ(report.contains("tune"), options.recipe.tune.has_value());
    ++count;
  }
  EXPECT_GE(count, 20);
}

// As MobileQuant does: after smoothing, in a model with biases.
TEST(Quantize, ChannelScalesGoOnWhereTheyStopped) {
  const TestFolder folder;
  QuantizeOptions options = shortened("mobilequant-w4a8", folder.path() / "whole");
  options.model = tiny_model_folder("tiny-qwen2");
  options.recipe.learn->steps = 20;
  quantize(options);
  const auto whole = contents(options.out);
  options.out = folder.path() / "stopped";
  options.progress = [](const std::string& step, int done, int) {
    if (step == "learn" && done == 18) fail("stopped");
  };
  EXPECT_EQ(error_of([&] { quantize(options); }), "stopped");
  int first = 0;
  options.progress = [&](const std::string& step, int done, int) {
    if (step == "learn" && done > 0 && first == 0) first = done;
  };
  quantize(options);
  EXPECT_EQ(first, 17);
  EXPECT_EQ(contents(options.out), whole);
}

// Learned at hardly any rate, ranges stay those of the float model; else they are observed again,
// on the model with rounded weights.
TEST(Quantize, RangesThatWereNotLearnedAreObservedAgain) {
  const auto scales = [](bool inputs, bool outputs) {
    const TestFolder folder;
    QuantizeOptions options = shortened("quantnpu-w4a8-down0", folder.path() / "out");
    LearnSpec& spec = *options.recipe.learn;
    spec.input_scales = inputs;
    spec.output_scales = spec.quantize_outputs = outputs;
    spec.lr_rotations = spec.lr_scales = 1e-9;
    quantize(options);
    const auto artifact = load_artifact(options.out);
    const auto scale = [&](const char* name) {
      return scale_at(*artifact, artifact->graph.find_site(name));
    };
    return std::pair(scale("layers.1.mlp.gate_up_proj.in"), scale("layers.1.mlp.up_proj.out"));
  };
  // The multipliers' 12 bits move a scale that stays by less than 2^-11.
  const auto same = [](double a, double b) { return std::abs(a / b - 1.0) < 5e-4; };
  const auto none = scales(false, false), inputs = scales(true, false), both = scales(true, true);
  EXPECT_FALSE(same(none.first, inputs.first));
  EXPECT_TRUE(same(inputs.first, both.first));
  EXPECT_FALSE(same(inputs.second, both.second));
}

// One budget for all that is compared, and default's settings for what is default but for widths.
TEST(Quantize, ComparedRecipesLearnAlike) {
  for (const auto& entry : fs::directory_iterator(source_folder() / "recipes")) {
    const std::string name = entry.path().stem();
    const Recipe recipe = test_recipe(name);
    if (recipe.learn && name != "paper") {
      EXPECT_EQ(recipe.learn->steps, 16) << name;
      EXPECT_EQ(recipe.learn->sequences, 1) << name;
      EXPECT_EQ(recipe.learn->length, 2048) << name;
    }
    if (name.starts_with("default")) {
      EXPECT_TRUE(recipe.tune == test_recipe("default").tune) << name;
    }
  }
}

TEST(Quantize, BadInputsAreNamed) {
  const TestFolder folder;
  const auto error_with = [&](auto change) {
    QuantizeOptions options = options_for("tiny-llama", folder.path() / "out");
    change(options);
    const std::string error = error_of([&] { quantize(options); });
    EXPECT_TRUE(fs::is_empty(folder.path()));
    return error;
  };
  const auto short_text = [](QuantizeOptions& o) {
    o.samples = 1;
    o.length = 400;
    o.calibration = {source_folder() / ".clang-format"};
  };
  EXPECT_THAT(error_with(short_text), HasSubstr("one window needs 400"));
  const auto no_match = [](QuantizeOptions& o) {
    o.recipe.rules.push_back({.match = "layers.*.nothing", .bitwidth = 8});
  };
  EXPECT_THAT(error_with(no_match), HasSubstr("'layers.*.nothing' matches no site"));
  const auto both = [](QuantizeOptions& o) {
    o.recipe.learn.emplace().weights = true;
    o.recipe.learn->rotations = true;
  };
  EXPECT_THAT(error_with(both), HasSubstr("'rotations' and 'weights'"));
  const auto online = [](QuantizeOptions& o) {
    o.recipe.tune.emplace();
    o.recipe.dynamic_activations = true;
  };
  EXPECT_THAT(error_with(online), HasSubstr("\"dynamic_inputs\": true"));
  const auto turning = [](QuantizeOptions& o) {
    o.recipe.tune.emplace();
    o.recipe.r3 = Rotation::kHadamard;
  };
  EXPECT_THAT(error_with(turning), HasSubstr("cannot be learned"));
  const auto long_windows = [](QuantizeOptions& o) {
    o.recipe.tune.emplace().weights = true;
    o.recipe.tune->optimizer = Optimizer::kAdam;
    o.recipe.tune->length = 1 << 19;
  };
  EXPECT_THAT(error_with(long_windows), HasSubstr("no window of 524288 tokens"));
  const auto beyond_positions = [&](QuantizeOptions& o) {
    long_windows(o);
    o.recipe.tune->length = 2048;
  };
  EXPECT_THAT(error_with(beyond_positions), HasSubstr("learning from sequences of 2048 tokens"));
  const auto beyond_with_prefix = [](QuantizeOptions& o) {
    o.recipe.prefix.emplace().max_tokens = 3;
    o.length = load_config(o.model / "config.json").max_positions - 2;
  };
  EXPECT_THAT(error_with(beyond_with_prefix), HasSubstr("behind a prefix of 3"));
  const auto wrong_width = [](QuantizeOptions& o) {
    o.recipe.rules.push_back({.match = "embed_tokens.weight", .bitwidth = 4});
  };
  EXPECT_THAT(error_with(wrong_width), HasSubstr("embed_tokens.weight"));
  const auto smooth_and_r1 = [](QuantizeOptions& o) { o.recipe.smooth.emplace(); };
  EXPECT_THAT(error_with(smooth_and_r1), AllOf(HasSubstr("smooth"), HasSubstr("R1")));
  const auto channels_and_r1 = [](QuantizeOptions& o) {
    o.recipe.learn.emplace().channel_scales = true;
  };
  EXPECT_THAT(error_with(channels_and_r1), AllOf(HasSubstr("channel_scales"), HasSubstr("R1")));
  const auto channels_too_late = [](QuantizeOptions& o) {
    o.recipe = test_recipe("smoothquant-w4a8");
    o.recipe.tune.emplace().channel_scales = true;
  };
  EXPECT_THAT(error_with(channels_too_late), HasSubstr("from the section tune to learn"));
  const auto rotations_too_late = [](QuantizeOptions& o) {
    o.recipe.tune.emplace().rotations = true;
  };
  EXPECT_THAT(error_with(rotations_too_late),
              AllOf(HasSubstr("rotations"), HasSubstr("from the section tune to learn")));
  const auto nothing_turned = [](QuantizeOptions& o) {
    o.recipe.learn.emplace().rotations = true;
    o.recipe.r1 = o.recipe.r2 = Rotation::kNone;
  };
  EXPECT_THAT(error_with(nothing_turned), HasSubstr("R1 and R2 are none"));
  const auto wide_inputs = [](QuantizeOptions& o) {
    o.recipe = test_recipe("w4a16kv8");
    o.recipe.tune.emplace().input_scales = true;
  };
  EXPECT_THAT(error_with(wide_inputs), HasSubstr("all inputs of linears have 16"));
  const auto gptq_without_scales = [](QuantizeOptions& o) {
    o.recipe.gptq.emplace();
    o.recipe.dynamic_activations = true;
  };
  EXPECT_THAT(error_with(gptq_without_scales),
              AllOf(HasSubstr("gptq"), HasSubstr("dynamic_activations")));
  const auto hidden_and_r1 = [](QuantizeOptions& o) {
    o.recipe.tune.emplace().loss = Loss::kHidden;
  };
  EXPECT_THAT(error_with(hidden_and_r1), AllOf(HasSubstr("'hidden'"), HasSubstr("R1")));
  const auto small_budget = [](QuantizeOptions& o) {
    o.recipe = test_recipe("auto");
    o.recipe.budget = "size<=1kB";
  };
  EXPECT_THAT(error_with(small_budget), HasSubstr("at least size<="));
  const auto two_choices = [](QuantizeOptions& o) {
    o.recipe = test_recipe("auto");
    o.recipe.sensitivity.emplace();
  };
  EXPECT_THAT(error_with(two_choices), AllOf(HasSubstr("sensitivity"), HasSubstr("budget")));
  const auto gptq_in_blocks = [](QuantizeOptions& o) {
    o.recipe = test_recipe("executorch-w4a16-block");
    o.recipe.gptq.emplace();
  };
  EXPECT_THAT(error_with(gptq_in_blocks), AllOf(HasSubstr("gptq"), HasSubstr("block_size")));
  EXPECT_THAT(error_with([](QuantizeOptions& o) { o.length = 1 << 24; }), HasSubstr("token"));
  EXPECT_NE(error_with([](QuantizeOptions& o) { o.model = "/nowhere"; }), "");
}

TEST(CutWindows, AreDisjointOrderedAndSeeded) {
  std::vector<int> tokens(1000);
  for (int i = 0; i < 1000; ++i) tokens[i] = i;
  const std::vector<Window> windows = cut_windows(tokens, 6, 100, 3);
  ASSERT_EQ(windows.size(), 6u);
  int end = 0;
  for (const Window& window : windows) {
    ASSERT_EQ(window.size(), 100u);
    EXPECT_GE(window.front(), end);
    end = window.back() + 1;
  }
  EXPECT_EQ(windows, cut_windows(tokens, 6, 100, 3));
  EXPECT_NE(windows, cut_windows(tokens, 6, 100, 4));
  EXPECT_EQ(cut_windows(tokens, 99, 300, 0).size(), 3u);
  EXPECT_THAT(error_of([&] { cut_windows(tokens, 1, 1001, 0); }),
              HasSubstr("has 1000 tokens, but one window needs 1001"));
}

TEST(Calibrate, SeesEveryGroupExactlyOnce) {
  const FloatModel model = load_float_model(tiny_model_folder("tiny-llama"));
  const Graph graph = build_graph(model.config, test_recipe("w4a8kv8"));
  Window window(40);
  for (int i = 0; i < 40; ++i) window[i] = 1 + i;
  const std::vector<SiteStatistics> stats = calibrate(model, graph, {window, window}, {});
  const auto count = [&](const char* name) { return stats[graph.find_site(name)].count(); };
  const int64_t tokens = 80;
  EXPECT_EQ(count("logits"), tokens * model.config.vocab_size);
  EXPECT_EQ(count("layers.0.mlp.down_proj.in"), tokens * model.config.intermediate_size);
  EXPECT_EQ(count("layers.0.self_attn.scores.out"), tokens * 40 * model.config.num_heads);
  EXPECT_EQ(count("layers.0.self_attn.v_cache"), 0);  // the rows of v_proj.out
}

TEST(SampleToken, KeepsToTopKTopPAndAllowed) {
  const std::vector<float> logits = {0.0f, 3.0f, 2.0f, 1.0f, 9.0f};
  const std::vector<bool> allowed = {true, true, true, true, false};
  EXPECT_EQ(sample_token(logits.data(), allowed, 1, 1.0, 0.999), 1);
  EXPECT_EQ(sample_token(logits.data(), allowed, 4, 0.1, 0.999), 1);
  EXPECT_EQ(sample_token(logits.data(), allowed, 2, 1.0, 0.999), 2);
  EXPECT_EQ(sample_token(logits.data(), allowed, 4, 1.0, 0.0), 1);
  EXPECT_EQ(sample_token(logits.data(), allowed, 4, 1.0, 0.9999), 0);
}

TEST(SampleToken, DrawsByProbability) {
  const std::vector<float> logits = {std::log(1.0f), std::log(2.0f), std::log(5.0f)};
  std::vector<int> counts(3);
  for (int i = 0; i < 800; ++i) {
    ++counts[sample_token(logits.data(), {true, true, true}, 3, 1.0, (i + 0.5) / 800)];
  }
  EXPECT_EQ(counts, (std::vector<int>{100, 200, 500}));
}

}  // namespace
}  // namespace qnpu
