// Flattened rotations keep the function, and 4-bit weights round better for it.
#include "quant/flatten.h"

#include <gtest/gtest.h>

#include "quant/learn/cayley.h"
#include "quant/test_models.h"
#include "quant/weights.h"

namespace qnpu {
namespace {

using torch::Tensor;

class Flatten : public testing::TestWithParam<std::string> {
 protected:
  Flatten() : model_(load_float_model(tiny_model_folder(GetParam()))) {
    recipe_.r1 = Rotation::kRandom;
    recipe_.r2 = Rotation::kRandom;
    recipe_.flatten = FlattenSpec{};
    recipe_.rules = {{.match = "*_proj.weight", .bitwidth = 4}};
    fold_norms(model_);
    rotate(model_, recipe_.r1, recipe_.r2, /*seed=*/3);
    graph_ = build_graph(model_.config, recipe_);
  }

  FloatModel turned_by(const Rotations& rotations) const {
    FloatModel model = model_;
    rotate(model, rotations);
    return model;
  }

  Tensor logits(const FloatModel& model) const {
    const auto golden = load_golden(tiny_model_folder(GetParam()) / "golden.safetensors");
    Simulator simulator(model, graph_, torch::kFloat32);
    return all_logits(simulator, golden.tokens);
  }

  // Weights of the layers whose names have one of these ends.
  std::vector<Tensor> weights(const FloatModel& model, const std::vector<std::string>& ends) const {
    std::vector<Tensor> found;
    for (const auto& [name, weight] : model.weights) {
      for (const std::string& end : ends) {
        if (name.ends_with(end + "_proj.weight")) found.push_back(weight);
      }
    }
    return found;
  }

  FloatModel model_;
  Recipe recipe_;
  Graph graph_;
};

// Squared error of nearest 4-bit integers, relative to the weights' squares.
double rounding_error(const std::vector<Tensor>& weights) {
  double error = 0.0, squares = 0.0;
  const QuantSpec spec{.bitwidth = 4, .observer = Observer::kMse};
  for (const Tensor& w : weights) {
    const WeightRows rows{w.data_ptr<float>(), w.size(0), w.size(1)};
    std::vector<float> scale(static_cast<size_t>(rows.n));
    std::vector<int8_t> q(static_cast<size_t>(w.numel()));
    weight_scales(rows, spec, false, scale.data());
    round_weights(rows, scale.data(), weight_range(spec), q.data());
    error += weight_error(rows, scale.data(), q.data());
    squares += sum_of_squares(rows);
  }
  return error / squares;
}

TEST_P(Flatten, KeepsTheFunctionByOrthogonalMatrices) {
  const Rotations found = flatten(model_, graph_, recipe_).rotations;
  EXPECT_LE(orthogonality_error(found.r1), 1e-12);
  ASSERT_EQ(found.r2.size(), static_cast<size_t>(model_.config.num_layers));
  for (const Tensor& r2 : found.r2) EXPECT_LE(orthogonality_error(r2), 1e-12);
  EXPECT_LE(relative_difference(logits(turned_by(found)), logits(model_)), 1e-4);
}

TEST_P(Flatten, WeightsRoundBetter) {
  const Flattening found = flatten(model_, graph_, recipe_);
  const std::vector<std::string> all = {"q", "k", "v", "o", "gate", "up", "down"};
  EXPECT_LT(rounding_error(weights(turned_by(found.rotations), all)),
            0.97 * rounding_error(weights(model_, all)));
  const Rotations r2{{}, found.rotations.r2};  // found for weights that R1 has turned
  const FloatModel by_r1 = turned_by({found.rotations.r1, {}});
  FloatModel by_both = by_r1;
  rotate(by_both, r2);
  EXPECT_LT(rounding_error(weights(by_both, {"v", "o"})),
            rounding_error(weights(by_r1, {"v", "o"})));
}

// What it says of the fourth powers, from the turned weights themselves.
TEST_P(Flatten, FourthPowersAreThoseOfTheTurnedWeights) {
  recipe_.r2 = Rotation::kNone;
  const Flattening found = flatten(model_, graph_, recipe_);
  EXPECT_TRUE(found.rotations.r2.empty());
  const auto mean = [&](const FloatModel& model) {
    double sum = 0.0, count = 0.0;
    const auto add = [&](const Tensor& w, const Tensor& square) {
      sum += (w.square() / square).square().sum(torch::kFloat64).item<double>();
      count += static_cast<double>(w.numel());
    };
    for (const Tensor& w : weights(model, {"q", "k", "v", "gate", "up"})) {
      add(w, w.square().mean(1, /*keepdim=*/true));
    }
    for (const Tensor& w : weights(model, {"o", "down"})) add(w, w.square().mean());
    return sum / count;
  };
  EXPECT_NEAR(found.before, mean(model_), 1e-4);
  EXPECT_NEAR(found.after, mean(turned_by(found.rotations)), 1e-4);
  EXPECT_LT(found.after, 0.95 * found.before);
}

TEST_P(Flatten, WeightsOfEightBitsDoNotCount) {
  const double before = flatten(model_, graph_, recipe_).before;
  recipe_.rules.push_back({.match = "*.up_proj.weight", .bitwidth = 8});
  EXPECT_NE(flatten(model_, build_graph(model_.config, recipe_), recipe_).before, before);
}

INSTANTIATE_TEST_SUITE_P(Models, Flatten, testing::ValuesIn(tiny_models()), test_name);

}  // namespace
}  // namespace qnpu
