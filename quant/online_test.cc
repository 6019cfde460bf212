// Rotations at run time keep the function; scales per token against a plain recomputation; and an
// artifact with both, simulated.
#include "quant/online.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "io/test_folder.h"
#include "quant/fake_quant.h"
#include "quant/hadamard.h"
#include "quant/learn/linear_group.h"
#include "quant/prefix.h"
#include "quant/test_run.h"

namespace qnpu {
namespace {

using testing::HasSubstr;

Recipe online_recipe(const char* rules = "[]") {
  return recipe_from_json({{"name", "online"},
                           {"rotation", {{"r3", "hadamard"}, {"r4", "hadamard"}}},
                           {"dynamic_activations", true},
                           {"rules", nlohmann::json::parse(rules)}},
                          "online.json");
}

torch::Tensor golden_tokens(const std::string& model) {
  return load_golden(tiny_model_folder(model) / "golden.safetensors").tokens;
}

// Values of some sites in one pass.
std::map<std::string, torch::Tensor> values_of(Simulator& simulator, const Graph& graph,
                                               const torch::Tensor& tokens, const SiteHook& round) {
  std::map<std::string, torch::Tensor> values;
  const SiteHook hook = [&](int site, const torch::Tensor& value) {
    const torch::Tensor out = round ? round(site, value) : value;
    values[graph.site(site).name] = out;
    return out;
  };
  simulator.reset();
  values["all logits"] = simulator.logits(simulator.forward(tokens.unsqueeze(0), hook)[0], hook);
  return values;
}

class OnlineTest : public testing::TestWithParam<std::string> {};

TEST_P(OnlineTest, RotationsKeepTheFunction) {
  FloatModel model = load_float_model(tiny_model_folder(GetParam()));
  fold_norms(model);
  model.prefix = compute_prefix(model, build_graph(model.config, Recipe{}), {7, 3});
  FloatModel turned = model;
  const Graph graph = build_graph(model.config, online_recipe());
  rotate_online(turned, graph, online_recipe());
  Simulator a(model, graph);
  Simulator b(turned, graph);
  const torch::Tensor tokens = golden_tokens(GetParam());
  auto before = values_of(a, graph, tokens, {});
  auto after = values_of(b, graph, tokens, {});
  EXPECT_LE(relative_difference(after["all logits"], before["all logits"]), 1e-4);

  const int width = model.config.intermediate_size;
  const torch::Tensor h = hadamard(width).to(torch::kFloat32);
  const char* down = "layers.0.mlp.down_proj.in";
  EXPECT_LE(relative_difference(after[down], torch::matmul(before[down], h)), 1e-4);
  const torch::Tensor head = hadamard(model.config.head_dim).to(torch::kFloat32);
  const char* key = "layers.0.self_attn.k_cache";  // [1, T, heads * head_dim]
  const torch::Tensor heads = before[key].unflatten(-1, {-1, model.config.head_dim});
  EXPECT_LE(relative_difference(after[key], torch::matmul(heads, head).flatten(-2)), 1e-4);
  for (const char* name : {down, key}) {
    EXPECT_TRUE(graph.site(graph.find_site(name)).rotated) << name;
  }
}

// With 8-bit weights little is lost: the artifact holds W H and is simulated with x H.
TEST_P(OnlineTest, ArtifactIsSimulatedWithItsRotations) {
  const TestFolder folder;
  QuantizeOptions options = test_run(GetParam(), online_recipe(), folder.path() / "artifact");
  options.samples = 4;
  options.length = 64;
  quantize(options);
  const auto artifact = load_artifact(options.out);
  EXPECT_THAT(simulated_only(*artifact),
              AllOf(HasSubstr("R3"), HasSubstr("R4"), HasSubstr("finds the scales")));
  const FloatModel model = simulated_model(*artifact);
  Simulator simulator(model, artifact->graph);
  set_artifact_weights(simulator, *artifact);
  const Golden golden = load_golden(tiny_model_folder(GetParam()) / "golden.safetensors");
  auto values = values_of(simulator, artifact->graph, golden.tokens, simulation_hook(*artifact));
  const torch::Tensor noise = values["all logits"] - golden.logits;
  const double ratio =
      (golden.logits.square().mean() / noise.square().mean()).sqrt().item<double>();
  // 8 bits in every input and in the caches leave 9 to 20 on these random models, with rotations
  // and without.
  EXPECT_GT(ratio, 6.0);

  // Without the rotation of x, what W H makes of it is something else.
  FloatModel unturned = model;
  unturned.online.clear();
  Simulator wrong(unturned, artifact->graph);
  set_artifact_weights(wrong, *artifact);
  auto other = values_of(wrong, artifact->graph, golden.tokens, simulation_hook(*artifact));
  EXPECT_LT((golden.logits.square().mean() / (other["all logits"] - golden.logits).square().mean())
                .sqrt()
                .item<double>(),
            0.5 * ratio);
}

INSTANTIATE_TEST_SUITE_P(TinyModels, OnlineTest, testing::ValuesIn(tiny_models()), test_name);

TEST(Online, ScalesPerTokenAreThoseOfEachRow) {
  const TestFolder folder;
  const char* rules = R"([{"match": "layers.1.mlp.down_proj.in", "bitwidth": 16}])";
  const QuantizeOptions options =
      test_run("tiny-llama", online_recipe(rules), folder.path() / "artifact");
  quantize(options);
  const auto artifact = load_artifact(options.out);
  const SiteHook hook = simulation_hook(*artifact);
  const auto site = [&](const char* name) { return artifact->graph.find_site(name); };
  const torch::Tensor x = torch::sin(torch::arange(3 * 128, torch::kFloat32)).view({1, 3, 128}) *
                          torch::tensor({0.01f, 1.0f, 300.0f}).view({1, 3, 1});
  const torch::Tensor y = hook(site("layers.0.mlp.down_proj.in"), x);
  for (int t = 0; t < 3; ++t) {
    double largest = 0.0;
    for (int j = 0; j < 128; ++j) {
      largest = std::max<double>(largest, std::fabs(x[0][t][j].item<float>()));
    }
    for (int j = 0; j < 128; ++j) {
      const double expected =
          std::nearbyint(x[0][t][j].item<double>() / (largest / 127)) * (largest / 127);
      EXPECT_NEAR(y[0][t][j].item<double>(), expected, 1e-5 * largest);
    }
  }
  // What learning multiplies the weights by is the same to the bit: here they are an identity.
  LinearGroup group;
  group.parts = {{0, 0, 128, Grid{}}};
  group.token_qmax = 127;
  group.codes = torch::eye(128);
  group.scale = torch::ones({128});
  EXPECT_TRUE(torch::equal(linears(x[0], group)[0], y[0]));
  // Caches and 16-bit sites keep their static grids; what lies between is not rounded.
  const torch::Tensor rows = x.narrow(2, 0, 32);
  EXPECT_TRUE(torch::equal(hook(site("layers.0.self_attn.v_proj.out"), rows), rows));
  EXPECT_TRUE(torch::equal(hook(site("layers.0.mlp.up_proj.out"), x), x));
  const SiteHook fixed = fake_quant_hook(*artifact);
  for (const char* name : {"layers.0.self_attn.v_cache", "layers.1.mlp.down_proj.in",
                           "layers.0.self_attn.q_rope.out"}) {
    EXPECT_TRUE(torch::equal(hook(site(name), rows), fixed(site(name), rows))) << name;
    EXPECT_FALSE(torch::equal(fixed(site(name), rows), rows)) << name;
  }
}

TEST(Online, SizesWithoutAHadamardMatrixAreNamed) {
  ModelConfig config = load_config(tiny_model_folder("tiny-llama") / "config.json");
  config.intermediate_size = 130;
  const Recipe recipe = online_recipe();
  EXPECT_THAT(error_of([&] { online_rotations(build_graph(config, recipe), recipe); }),
              AllOf(HasSubstr("'online'"), HasSubstr("R4"), HasSubstr("size 130")));
}

}  // namespace
}  // namespace qnpu
