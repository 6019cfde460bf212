// That dividing channels keeps the function, whatever the factors.
#include "quant/channel_pairs.h"

#include <gtest/gtest.h>

#include "quant/prefix.h"
#include "quant/test_models.h"

namespace qnpu {
namespace {

using torch::Tensor;

// In double precision nothing but rounding is left: a wrong term cannot hide behind a tolerance.
class ChannelPairs : public testing::TestWithParam<std::string> {
 protected:
  ChannelPairs() : model_(load_float_model(tiny_model_folder(GetParam()))) {
    torch::manual_seed(2);
    fold_norms(model_);
    graph_ = build_graph(model_.config, Recipe{});
    model_.prefix = compute_prefix(model_, graph_, {7, 3});
    for (auto& [name, weight] : model_.weights) weight = weight.to(torch::kFloat64);
    for (auto& [name, rows] : model_.prefix.rows) rows = rows.to(torch::kFloat64);
    tokens_ = load_golden(tiny_model_folder(GetParam()) / "golden.safetensors").tokens;
  }
  Tensor logits(const FloatModel& model) const {
    Simulator simulator(model, graph_, torch::kFloat64);
    return all_logits(simulator, tokens_);
  }
  // From 1/4 to 4.
  Tensor factors(const ChannelPair& pair, int layer) const {
    const Tensor& divider = model_.weights.at(in_layer(layer, pair.divider) + ".weight");
    return torch::exp2(4.0 * torch::rand({divider.size(0)}, torch::kFloat64) - 2.0);
  }

  FloatModel model_;
  Graph graph_;
  Tensor tokens_;
};

TEST_P(ChannelPairs, EachKeepsTheFunction) {
  const Tensor before = logits(model_);
  for (const ChannelPair& pair : channel_pairs()) {
    FloatModel divided = model_;
    for (int layer = 0; layer < model_.config.num_layers; ++layer) {
      divide_channels(divided, layer, pair, factors(pair, layer));
    }
    EXPECT_LE(relative_difference(logits(divided), before), 1e-10) << pair.divider;
    const std::string reader = in_layer(0, pair.readers.front()) + ".weight";
    EXPECT_GT(max_difference(divided.weights.at(reader), model_.weights.at(reader)), 1e-3);
  }
}

TEST_P(ChannelPairs, AllTogetherAndTwiceKeepTheFunction) {
  const Tensor before = logits(model_);
  FloatModel divided = model_;
  for (int time = 0; time < 2; ++time) {
    for (int layer = 0; layer < model_.config.num_layers; ++layer) {
      for (const ChannelPair& pair : channel_pairs()) {
        divide_channels(divided, layer, pair, factors(pair, layer));
      }
    }
  }
  EXPECT_LE(relative_difference(logits(divided), before), 1e-10);
}

INSTANTIATE_TEST_SUITE_P(Tiny, ChannelPairs, testing::ValuesIn(tiny_models()), test_name);

TEST(ToColumns, QueryHeadsShareWhatTheirValuesHave) {
  const Tensor channels = torch::tensor({1, 2, 3, 4});  // two KV heads of two channels
  const Tensor columns = torch::tensor({1, 2, 1, 2, 3, 4, 3, 4});
  EXPECT_TRUE(torch::equal(to_columns(channels, 8, 2), columns));
  EXPECT_TRUE(torch::equal(to_channels(columns, 4, 2), 2 * channels));
  EXPECT_TRUE(torch::equal(to_columns(channels, 4, 2), channels));
}

}  // namespace
}  // namespace qnpu
