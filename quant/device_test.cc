// Nothing in this folder assumes the CPU: all of it computes on another device what it computes
// there, though on a pretended one, so that no GPU is needed to find out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/test_folder.h"
#include "model/artifact.h"
#include "quant/pretend_device.h"
#include "quant/test_run.h"

namespace qnpu {
namespace {

using testing::HasSubstr;

TEST(PretendDevice, IsNotTheCpu) {
  const torch::Tensor here = torch::tensor({1.0f, -2.0f});
  const torch::Tensor there = here.to(kPretendDevice);
  EXPECT_EQ((there * 2.0).select(0, 1).item<float>(), -4.0f);
  EXPECT_NE(pretend::disguised(there.data_ptr()), here.data_ptr());
  EXPECT_THROW(there + here, c10::Error);
  EXPECT_THROW(torch::matmul(there, here), c10::Error);
  EXPECT_TRUE(torch::equal(there.cpu(), here));
}

class DeviceTest : public testing::TestWithParam<std::string> {};

TEST_P(DeviceTest, LogitsAreThoseOfTheCpu) {
  const FloatModel model = load_float_model(tiny_model_folder(GetParam()));
  const FloatModel there = moved(model, kPretendDevice);
  const Graph graph = build_graph(model.config, Recipe{});
  const torch::Tensor tokens =
      load_golden(tiny_model_folder(GetParam()) / "golden.safetensors").tokens;
  Simulator on_cpu(model, graph), on_device(there, graph);
  const torch::Tensor logits = all_logits(on_device, tokens);
  EXPECT_EQ(logits.device(), kPretendDevice);
  EXPECT_LE(max_difference(logits.cpu(), all_logits(on_cpu, tokens)), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(TinyModels, DeviceTest, testing::ValuesIn(tiny_models()), test_name);

// Short texts and few steps.
QuantizeOptions options_for(const std::string& recipe, const std::filesystem::path& out) {
  QuantizeOptions options = test_run("tiny-llama", test_recipe(recipe), out);
  for (auto* spec : {&options.recipe.learn, &options.recipe.tune}) {
    if (!*spec) continue;
    (*spec)->steps = 2;
    (*spec)->sequences = 2;
    (*spec)->length = 32;
    (*spec)->lr_weights = 1e-4;  // where weights are learned, they move
    (*spec)->output_scales = (*spec)->quantize_outputs;
  }
  if (!options.recipe.budget.empty()) options.recipe.budget = "16bit<=50%";
  options.samples = 3;
  return options;
}

// Over all channels and sites, the mean of |log(scale on one device / scale on the other)|.
double distance(const Artifact& a, const Artifact& b) {
  double sum = 0.0;
  int64_t count = 0;
  for (const Site& site : a.graph.sites) {
    const Site& other = b.graph.site(b.graph.find_site(site.name));
    for (size_t i = 0; i < site.qparams.scale.size(); ++i, ++count) {
      if (site.qparams.scale[i] == other.qparams.scale[i]) continue;
      sum += std::abs(std::log(site.qparams.scale[i] / other.qparams.scale[i]));
    }
  }
  return sum / static_cast<double>(count);
}

class DeviceRecipeTest : public testing::TestWithParam<std::string> {};

TEST_P(DeviceRecipeTest, QuantizesAsOnTheCpu) {
  const TestFolder folder;
  QuantizeOptions options = options_for(GetParam(), folder.path() / "cpu");
  quantize(options);
  options.out = folder.path() / "device";
  options.device = kPretendDevice;
  const QuantizeResult result = quantize(options);
  EXPECT_EQ(result.expected_seconds, 0.0);
  EXPECT_LE(distance(*load_artifact(folder.path() / "cpu"), *load_artifact(options.out)), 5e-3);
}

// Together they have every section and rule that recipes can have.
INSTANTIATE_TEST_SUITE_P(Recipes, DeviceRecipeTest,
                         testing::Values("default", "paper", "auto", "smoothquant-w4a8",
                                         "quarot-online-w4a8", "executorch-w4a16-block",
                                         "quantnpu-w4a8", "spinquant-w4a8", "mobilequant-w4a8"),
                         test_name);

TEST(Device, SamplesItsOwnText) {
  const TestFolder folder;
  QuantizeOptions options = options_for("fast", folder.path() / "out");
  options.calibration.clear();
  options.device = kPretendDevice;
  quantize(options);
  EXPECT_TRUE(std::filesystem::exists(options.out / "calibration.txt"));
}

}  // namespace
}  // namespace qnpu
