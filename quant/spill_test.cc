// Models whose weights live in files: the same numbers everywhere, and nothing left in the folder.
#include "quant/spill.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "io/files.h"
#include "io/test_folder.h"
#include "quant/calibrate.h"
#include "quant/freeze.h"
#include "quant/layerwise.h"
#include "quant/prefix.h"
#include "quant/ranges.h"
#include "quant/split.h"
#include "quant/test_models.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;

FloatModel load_spilled(const std::string& name, const fs::path& folder) {
  return load_float_model(tiny_model_folder(name), folder, /*most_in_memory=*/0);
}

// To the bit.
void expect_same(const FloatModel& a, const FloatModel& b) {
  ASSERT_EQ(a.weights.size(), b.weights.size());
  for (const auto& [name, weight] : a.weights) {
    EXPECT_TRUE(torch::equal(weight, b.weights.at(name))) << name;
  }
}

// Matrices and nothing else live in files.
void expect_spilled(const FloatModel& model) {
  for (const auto& [name, weight] : model.weights) {
    EXPECT_EQ(is_spilled(weight), weight.dim() == 2) << name;
  }
}

TEST(Spill, TheSameNumbersInAFile) {
  const TestFolder folder;
  const torch::Tensor tensor = torch::randn({70, 300}).t();
  const torch::Tensor file = spilled(tensor, folder.path());
  EXPECT_TRUE(is_spilled(file));
  EXPECT_FALSE(is_spilled(tensor));
  EXPECT_TRUE(file.is_contiguous());
  EXPECT_TRUE(torch::equal(file, tensor));
  release_pages(file);
  EXPECT_TRUE(torch::equal(file, tensor));
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(Spill, ReplacedWeightsStayWhereTheyWere) {
  const TestFolder folder;
  const torch::Tensor old = torch::randn({64, 64}), now = torch::randn({32, 48});
  torch::Tensor in_memory = old.clone(), file = spilled(old, folder.path());
  const torch::Tensor shared = file;
  replace(in_memory, now);
  replace(file, now);
  EXPECT_TRUE(in_memory.is_same(now));
  EXPECT_TRUE(is_spilled(file));
  EXPECT_TRUE(torch::equal(file, now));
  EXPECT_TRUE(torch::equal(shared, old));
  release_pages(in_memory);
  EXPECT_TRUE(torch::equal(in_memory, now));
}

TEST(Spill, SmallModelsStayInMemory) {
  const TestFolder folder;
  const FloatModel model = load_float_model(tiny_model_folder("tiny-llama"), folder.path());
  for (const auto& [name, weight] : model.weights) EXPECT_FALSE(is_spilled(weight)) << name;
}

TEST(Spill, FullDiskIsOneSentence) {
  const TestFolder folder;
  rlimit old_limit{};
  getrlimit(RLIMIT_FSIZE, &old_limit);
  const rlimit small{64, old_limit.rlim_max};
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string error = error_of([&] { load_spilled("tiny-llama", folder.path()); });
  setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(error, testing::HasSubstr("cannot write " + folder.path().string()));
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

class SpilledModel : public testing::TestWithParam<std::string> {
 protected:
  // All that `fast` does, into `folder`.
  static FloatModel quantize(FloatModel model, const fs::path& folder) {
    const Recipe recipe = load_recipe(source_folder() / "recipes/w4a8kv8.json");
    Graph graph = build_graph(model.config, recipe);
    const std::vector<Window> windows = {Window(40, 3), {5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3}};
    fold_norms(model);
    model.prefix = compute_prefix(model, graph, {1});
    for (int layer = 0; layer < model.config.num_layers; ++layer) {
      const torch::Tensor maxima = torch::ones({model.config.intermediate_size});
      maxima[0] = 100.0;
      split_mlp(model, layer, plan_split({maxima, maxima}, SplitSpec{}));
    }
    graph = build_graph(model.config, recipe);
    rotate(model, Rotation::kHadamard, Rotation::kHadamard, /*seed=*/1);
    assign_ranges(graph, calibrate(model, graph, windows, {}));
    GptqSpec gptq;
    gptq.feedback = true;
    round_layerwise(model, graph, windows, gptq, {});
    freeze(model, graph, folder, {});
    return model;
  }
};

TEST_P(SpilledModel, GivesTheSameArtifact) {
  const TestFolder spill, a, b;
  const FloatModel loaded = load_spilled(GetParam(), spill.path());
  expect_spilled(loaded);
  const FloatModel in_memory = quantize(load_float_model(tiny_model_folder(GetParam())), a.path());
  const FloatModel in_files = quantize(loaded, b.path());
  expect_spilled(in_files);
  expect_same(in_memory, in_files);
  // Whoever shares the first weights still has them.
  expect_same(load_float_model(tiny_model_folder(GetParam())), loaded);
  for (const char* file : {"graph.json", "model.safetensors"}) {
    EXPECT_EQ(read_file(a.path() / file), read_file(b.path() / file)) << file;
  }
  EXPECT_TRUE(fs::is_empty(spill.path()));
}

INSTANTIATE_TEST_SUITE_P(Models, SpilledModel, testing::ValuesIn(tiny_models()), test_name);

}  // namespace
}  // namespace qnpu
