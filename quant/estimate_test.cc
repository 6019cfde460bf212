// Properties, and the known figures of SmolLM2-135M.
#include "quant/estimate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"
#include "quant/test_run.h"

namespace qnpu {
namespace {

// Two cores of the machine that the figures of docs/commands.md were measured on.
constexpr MachineSpeed kSpeed = {400e9, 150e9, 2.2e9};

ModelConfig smollm2() {
  ModelConfig config = load_config(tiny_model_folder("tiny-llama") / "config.json");
  config.vocab_size = 49152;
  config.hidden_size = 576;
  config.intermediate_size = 1536;
  config.intermediate_sizes.clear();
  config.num_layers = 30;
  config.num_heads = 9;
  config.num_kv_heads = 3;
  config.head_dim = 64;
  config.max_positions = 8192;
  return config;
}

Estimate estimate(const Recipe& recipe, const Workload& load, ModelConfig config = smollm2(),
                  const MachineSpeed& speed = kSpeed) {
  return estimate_run(build_graph(config, recipe), recipe, load, speed);
}

TEST(Estimate, KnownFiguresWithinAThird) {
  const Workload load{.windows = 64, .length = 512, .held_out_tokens = 8192};
  const Estimate fast = estimate(test_recipe("fast"), load);
  const std::map<std::string, double> seconds = {
      {"prefix", 32.4}, {"split", 25.5}, {"rotate", 2.4}, {"calibrate", 43.0}, {"round", 195.6}};
  for (const auto& [step, wanted] : seconds) {
    EXPECT_NEAR(fast.seconds.at(step) / wanted, 1.0, 0.34) << step;
  }
  EXPECT_NEAR(fast.total / 287, 1.0, 0.2);
  EXPECT_NEAR(static_cast<double>(fast.peak_bytes) / 2.91e9, 1.0, 0.2);
  const Estimate tuned = estimate(test_recipe("default"), load);
  EXPECT_NEAR(tuned.total / (287 + 80 * 14), 1.0, 0.25);
  EXPECT_NEAR(static_cast<double>(tuned.peak_bytes) / 4.34e9, 1.0, 0.2);
  const Estimate half = estimate(test_recipe("fast"), {.windows = 32, .length = 512});
  EXPECT_NEAR(static_cast<double>(half.peak_bytes) / 2.27e9, 1.0, 0.2);
  const Estimate paper = estimate(test_recipe("paper"), {.windows = 16, .length = 2048});
  EXPECT_GT(paper.total, 12 * 3600.0);
}

// The shape of Llama-3.2-1B, rounded with its weights in files (bench/large-model): 7.70 GB.
TEST(Estimate, WeightsInFilesDoNotCount) {
  ModelConfig config = smollm2();
  config.vocab_size = 128256;
  config.hidden_size = 2048;
  config.intermediate_size = 8192;
  config.num_layers = 16;
  config.num_heads = 32;
  config.num_kv_heads = 8;
  Workload load{.windows = 8, .length = 512, .spilled = true};
  const Estimate spilled = estimate(test_recipe("fast"), load, config);
  EXPECT_NEAR(static_cast<double>(spilled.peak_bytes) / 7.70e9, 1.0, 0.2);
  load.spilled = false;
  EXPECT_GT(estimate(test_recipe("fast"), load, config).peak_bytes, 1.5 * spilled.peak_bytes);
}

TEST(Estimate, StepsCostInProportion) {
  Recipe recipe = test_recipe("default");
  const Workload load{.windows = 8, .length = 64};
  recipe.tune->steps = 10;
  const Estimate ten = estimate(recipe, load);
  recipe.tune->steps = 30;
  const Estimate thirty = estimate(recipe, load);
  EXPECT_NEAR(thirty.seconds.at("tune"), 3.0 * ten.seconds.at("tune"), 1e-9 * thirty.total);
  EXPECT_NEAR(thirty.total - ten.total, 2.0 * ten.seconds.at("tune"), 1e-9 * thirty.total);
  EXPECT_EQ(thirty.peak_bytes, ten.peak_bytes);
}

TEST(Estimate, GrowsWithTheModelAndTheText) {
  for (const char* name : {"fast", "fast-w8a8", "default", "paper", "auto", "smoothquant-w8a8"}) {
    const Recipe recipe = test_recipe(name);
    const Workload load{.windows = 16, .length = 512};
    const Estimate small = estimate(recipe, load);
    ModelConfig deeper = smollm2();
    deeper.num_layers *= 2;
    ModelConfig wider = smollm2();
    wider.hidden_size *= 2;
    wider.num_heads *= 2;
    wider.num_kv_heads *= 2;
    wider.intermediate_size *= 2;
    for (const ModelConfig& config : {deeper, wider}) {
      const Estimate large = estimate(recipe, load, config);
      EXPECT_GT(large.total, 1.3 * small.total) << name;
      EXPECT_GT(large.peak_bytes, small.peak_bytes) << name;
    }
    Workload more = load;
    more.windows *= 2;
    EXPECT_GT(estimate(recipe, more).total, small.total) << name;
    EXPECT_GE(estimate(recipe, more).peak_bytes, small.peak_bytes) << name;
    const MachineSpeed faster = {4e12, 1.5e12, 2.2e10};
    EXPECT_LT(estimate(recipe, load, smollm2(), faster).total, small.total) << name;
  }
}

TEST(Estimate, StepsAreThoseOfTheRecipe) {
  const Workload load{.windows = 4, .length = 64};
  const Estimate plain = estimate(test_recipe("w4a8kv8-norot"), load);
  for (const char* step : {"prefix", "split", "rotate", "round", "tune", "widths", "sample"}) {
    EXPECT_EQ(plain.seconds.count(step), 0u) << step;
  }
  Workload sampled = load;
  sampled.sampled_tokens = 8192;
  EXPECT_EQ(estimate(test_recipe("auto"), sampled).seconds.count("sample"), 1u);
  EXPECT_GT(estimate(test_recipe("auto"), load).seconds.at("widths"), 0.0);
}

// The same speeds reached by several threads together are worth less, but more than one thread's.
TEST(Estimate, ThreadsWaitForEachOther) {
  MachineSpeed two = kSpeed;
  two.threads = 2;
  const Workload load{.windows = 64, .length = 512};
  const double one = estimate(test_recipe("fast"), load).total;
  const double shared = estimate(test_recipe("fast"), load, smollm2(), two).total;
  EXPECT_GT(shared, one);
  EXPECT_LT(shared, 2.0 * one);
}

TEST(Estimate, MachineSpeedIsMeasuredOnce) {
  const MachineSpeed& speed = machine_speed();
  EXPECT_GT(speed.bf16, 1e8);
  EXPECT_GT(speed.fp32, 1e8);
  EXPECT_GT(speed.values, 1e6);
  EXPECT_EQ(speed.threads, torch::get_num_threads());
  EXPECT_EQ(&speed, &machine_speed());
}

TEST(Estimate, TextIsForPeople) {
  EXPECT_EQ(to_text({{}, 30.2, 500'000'000}), "about 30 s and 0.5 GB of memory");
  EXPECT_EQ(to_text({{}, 290, 2'900'000'000}), "about 5 minutes and 2.9 GB of memory");
  EXPECT_EQ(to_text({{}, 27 * 3600, 6'000'000'000}), "about 27 hours and 6.0 GB of memory");
  EXPECT_EQ(to_text({{}, 5 * 86400, 6'000'000'000}), "about 5 days and 6.0 GB of memory");
}

}  // namespace
}  // namespace qnpu
