#include "quant/learn/channel_learner.h"

#include <gtest/gtest.h>

#include "quant/learn/exact_model_testing.h"
#include "quant/learn/parameters.h"
#include "quant/learn/pass.h"

namespace qnpu {
namespace {

using torch::Tensor;

// log s by pair, in the order of ChannelLearner::values().
using Logarithms = std::vector<Tensor>;

void set(ChannelLearner& learner, const Logarithms& u) {
  const auto values = learner.values();
  for (size_t i = 0; i < u.size(); ++i) Tensor(values[i].second).copy_(u[i]);
  learner.restored();
}

class ChannelsOfEachModel : public ExactModel {
 protected:
  void SetUp() override {
    ExactModel::SetUp();
    Network network(model_, graph_, exact());
    const ChannelLearner learner(model_, graph_, network);
    for (const auto& [name, value] : learner.values()) {
      u_.push_back(0.3 * torch::randn_like(value));
    }
    for (const LinearGroup& group : network.groups()) {
      errors_.push_back(0.05 * torch::randn_like(group.codes));
    }
  }

  // Cross entropy with scales exp(u), weights off by `share` of fixed errors: with errors the
  // function depends on u.
  double loss(const Logarithms& u, double share, Logarithms* gradients = nullptr) {
    Network network(model_, graph_, exact());
    ChannelLearner learner(model_, graph_, network);
    set(learner, u);
    for (size_t i = 0; i < errors_.size(); ++i) {
      LinearGroup& group = network.groups()[i];
      group.codes = learner.weights(group) + share * errors_[i];
      if (gradients != nullptr) group.codes_grad = torch::zeros_like(group.codes);
    }
    Pass pass(network, network, Loss::kCrossEntropy);
    if (gradients == nullptr) {
      const torch::NoGradGuard no_grad;
      return pass.forward(tokens_).sum;
    }
    const double sum = pass.backward(tokens_, 1.0).sum;
    for (LinearGroup& group : network.groups()) {
      const Tensor products = group.codes_grad * learner.weights(group);
      learner.pull_back(group, products, products.sum(1));
    }
    *gradients = learner.gradients();
    return sum;
  }

  Logarithms u_;
  std::vector<Tensor> errors_;  // by group
};

TEST_P(ChannelsOfEachModel, TheFunctionStays) {
  Network network(model_, graph_, exact());
  Pass pass(network, network, Loss::kCrossEntropy);
  const double wanted = pass.forward(tokens_).sum;
  EXPECT_NEAR(loss(u_, 0.0), wanted, 1e-8 * wanted);
  EXPECT_GT(std::abs(loss(u_, 1.0) - wanted), 1e-3);
  Network learned(model_, graph_, exact());
  ChannelLearner learner(model_, graph_, learned);
  set(learner, u_);
  FloatModel folded = model_;
  learner.finish(folded);
  Network divided(folded, graph_, exact());
  Pass divided_pass(divided, divided, Loss::kCrossEntropy);
  EXPECT_NEAR(divided_pass.forward(tokens_).sum, wanted, 1e-5 * wanted);  // weights are fp32
  const char* norm = "layers.1.input_layernorm.weight";
  EXPECT_GT(max_difference(folded.weights.at(norm), model_.weights.at(norm)), 0.1);
}

// Of fourth order, along a direction of each pair.
TEST_P(ChannelsOfEachModel, GradientsAreFiniteDifferences) {
  Logarithms gradients;
  loss(u_, 1.0, &gradients);
  for (size_t i = 0; i < u_.size(); ++i) {
    const Tensor start = u_[i], direction = torch::randn_like(start);
    const auto at = [&](double distance) {
      u_[i] = start + distance * direction;
      return loss(u_, 1.0);
    };
    const double step = 1e-4;
    const double sum = 8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step));
    u_[i] = start;
    const double slope = sum / (12 * step);
    EXPECT_NEAR((gradients[i] * direction).sum().item<double>(), slope,
                1e-6 * std::max(1.0, std::abs(slope)))
        << i;
  }
}

TEST_P(ChannelsOfEachModel, NoGradientWithoutErrors) {
  Logarithms none, some;
  loss(u_, 0.0, &none);
  loss(u_, 1.0, &some);
  for (size_t i = 0; i < none.size(); ++i) {
    EXPECT_LT(none[i].abs().max().item<double>(), 1e-8) << i;
    EXPECT_GT(some[i].abs().max().item<double>(), 1e-4) << i;
  }
}

// Integers of a row whose scale is divided with it; those of the linear that reads it change.
TEST(ChannelLearner, DividedRowsKeepTheirIntegers) {
  FloatModel model = load_float_model(tiny_model_folder("tiny-qwen2"));
  fold_norms(model);
  Graph graph = build_graph(model.config, Recipe{});
  NetworkOptions options;
  options.type = torch::kFloat32;
  options.round_inputs = false;
  Network network(model, graph, options);
  LearnSpec spec;
  spec.channel_scales = true;
  Parameters parameters(model, graph, network, spec, {});
  const auto group_of = [&](const char* site) -> LinearGroup& {
    const auto reads = [&](const LinearGroup& g) { return graph.site(g.site).name == site; };
    return *std::find_if(network.groups().begin(), network.groups().end(), reads);
  };
  LinearGroup& up = group_of("layers.0.mlp.gate_up_proj.in");
  LinearGroup& down = group_of("layers.0.mlp.down_proj.in");
  const Tensor up_codes = up.codes.clone(), down_codes = down.codes.clone();
  const Tensor scale = up.scale.clone();
  for (auto [name, value] : parameters.state()) {
    if (name == "layers.0.mlp.up_proj.channel_scale") {
      value.copy_(torch::linspace(-0.7, 0.7, value.numel()));
    }
  }
  parameters.restored(0);
  EXPECT_TRUE(torch::equal(up.codes, up_codes));
  EXPECT_NEAR(up.scale[-1].item<double>() / scale[-1].item<double>(), std::exp(-0.7), 1e-6);
  EXPECT_TRUE(torch::equal(up.scale.narrow(0, 0, up.parts[0].rows),
                           scale.narrow(0, 0, up.parts[0].rows)));  // gate's
  EXPECT_FALSE(torch::equal(down.codes, down_codes));
}

INSTANTIATE_TEST_SUITE_P(Tiny, ChannelsOfEachModel, testing::ValuesIn(tiny_models()), test_name);

}  // namespace
}  // namespace qnpu
