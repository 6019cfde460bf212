// The comparison of an artifact with its float model, and what inputs were before the rotation,
// against the same by other ways: everything at once in torch, and the model that is not rotated.
#include "quant/fidelity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "io/test_folder.h"
#include "quant/fake_quant.h"
#include "quant/online.h"
#include "quant/test_run.h"
#include "quant/unrotated.h"

namespace qnpu {
namespace {

using torch::Tensor;

class FidelityTest : public testing::TestWithParam<std::string> {};

Window some_tokens(const FloatModel& model, int count) {
  Window window;
  for (int i = 0; i < count; ++i) window.push_back((7 * i * i + 3 * i) % model.config.vocab_size);
  return window;
}

Tensor as_tensor(const Window& window) {
  const std::vector<int64_t> ids(window.begin(), window.end());
  return torch::tensor(ids, torch::kInt64);
}

TEST_P(FidelityTest, EqualsTheWholeArtifactAtOnce) {
  const TestFolder folder;
  const QuantizeOptions options =
      test_run(GetParam(), test_recipe("w4a8kv8-norot"), folder.path() / "out");
  quantize(options);
  const auto artifact = load_artifact(options.out);

  FloatModel model = load_float_model(options.model);
  fold_norms(model);
  const Window window = some_tokens(model, 40);
  const Graph graph = build_graph(model.config, options.recipe);
  const Fidelity fidelity = measure_fidelity(run_float(model, graph, window), *artifact);

  Simulator simulator(model, graph);
  const Tensor wanted = all_logits(simulator, as_tensor(window));
  const FloatModel frame = simulated_model(*artifact);
  Simulator frozen(frame, artifact->graph);
  set_artifact_weights(frozen, *artifact);
  const SiteHook hook = simulation_hook(*artifact);
  const Tensor hidden = frozen.forward(as_tensor(window).unsqueeze(0), hook)[0];
  const Tensor logits = frozen.logits(hidden, hook);

  const double noise = (logits - wanted).square().sum().item<double>();
  const double sqnr = 10 * std::log10(wanted.square().sum().item<double>() / noise);
  ASSERT_EQ(fidelity.sqnr.back().first, "logits");
  EXPECT_NEAR(fidelity.sqnr.back().second, sqnr, 0.01);
  const Tensor p = torch::log_softmax(wanted, -1), q = torch::log_softmax(logits, -1);
  const Tensor kl = (p.exp() * (p - q)).sum(-1).slice(0, 0, -1);
  EXPECT_NEAR(fidelity.kl_divergence, kl.mean().item<double>(), 1e-4);
  EXPECT_EQ(fidelity.tokens, 39);
  // Of each layer four inputs of linears and two sums, of the head its input and output.
  EXPECT_EQ(fidelity.sqnr.size(), 6 * model.config.num_layers + 2);
}

TEST_P(FidelityTest, InputsBeforeTheRotationAreThoseOfTheModelThatIsNotRotated) {
  FloatModel plain = load_float_model(tiny_model_folder(GetParam()));
  fold_norms(plain);
  Recipe recipe;
  recipe.r1 = recipe.r2 = Rotation::kHadamard;
  const Graph graph = build_graph(plain.config, recipe);
  const Rotations rotations = make_rotations(plain.config, recipe.r1, recipe.r2, 5);
  const std::vector<Window> windows = {some_tokens(plain, 40)};
  const FloatRun unrotated = run_float(plain, graph, windows[0]);

  FloatModel rotated = plain;
  rotate(rotated, rotations);
  UnrotatedInputs inputs(graph, rotations);
  Simulator simulator(rotated, graph);
  read_windows(simulator, windows, inputs.hook(), /*with_logits=*/true, {});
  EXPECT_EQ(inputs.statistics().size(), 3 * plain.config.num_layers + 1);  // all but down's
  for (const auto& [site, seen] : inputs.statistics()) {
    const Tensor& value = unrotated.values.at(graph.site(site).name);
    const double largest = value.abs().max().item<double>();
    EXPECT_EQ(seen.count(), value.numel());
    EXPECT_NEAR(seen.min(), value.min().item<double>(), 1e-4 * largest) << graph.site(site).name;
    EXPECT_NEAR(seen.max(), value.max().item<double>(), 1e-4 * largest) << graph.site(site).name;
  }
}

INSTANTIATE_TEST_SUITE_P(TinyModels, FidelityTest, testing::ValuesIn(tiny_models()), test_name);

}  // namespace
}  // namespace qnpu
