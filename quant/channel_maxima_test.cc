// Against what a hook recorded.
#include "quant/channel_maxima.h"

#include <gtest/gtest.h>

#include <limits>

#include "io/test_folder.h"
#include "quant/test_models.h"

namespace qnpu {
namespace {

const std::vector<Window> kWindows = {{1, 5, 9, 2, 40, 7}, {3, 3, 60, 11}};

TEST(ChannelMaxima, AreThoseOfTheValues) {
  const FloatModel model = load_float_model(tiny_model_folder("tiny-llama"));
  const Graph graph = build_graph(model.config, Recipe{});
  const int down = graph.find_site("layers.1.mlp.down_proj.in");
  const int qkv = graph.find_site("layers.0.self_attn.qkv_proj.in");
  int calls = 0;
  const auto maxima =
      channel_maxima(model, graph, kWindows, {qkv, down}, [&](int, int) { ++calls; });
  EXPECT_EQ(calls, 2);
  ASSERT_EQ(maxima.size(), 2u);

  std::map<int, std::vector<float>> expected;
  Simulator simulator(model, graph);
  simulator.use_fast_products();  // the values that the pass sees, to the bit
  for (const Window& window : kWindows) {
    simulator.reset();
    const std::vector<int64_t> ids(window.begin(), window.end());
    simulator.forward(torch::tensor(ids).unsqueeze(0), [&](int site, const torch::Tensor& value) {
      if (site != qkv && site != down) return value;
      std::vector<float>& largest = expected[site];
      largest.resize(value.size(-1));
      const auto rows = value.accessor<float, 3>();
      for (int64_t t = 0; t < rows.size(1); ++t) {
        for (int64_t c = 0; c < rows.size(2); ++c) {
          largest[c] = std::max(largest[c], std::fabs(rows[0][t][c]));
        }
      }
      return value;
    });
  }
  for (const auto& [site, largest] : expected) {
    EXPECT_TRUE(torch::equal(maxima.at(site), torch::tensor(largest)));
  }
}

TEST(ChannelMaxima, NanIsNamed) {
  FloatModel model = load_float_model(tiny_model_folder("tiny-llama"));
  model.weights.at("layers.1.mlp.up_proj.weight")[0][0] = std::numeric_limits<float>::quiet_NaN();
  const Graph graph = build_graph(model.config, Recipe{});
  const int down = graph.find_site("layers.1.mlp.down_proj.in");
  const std::string error = error_of([&] { channel_maxima(model, graph, kWindows, {down}, {}); });
  EXPECT_NE(error.find("layers.1.mlp.down_proj.in"), std::string::npos) << error;
}

// In windows long enough for sinks.
TEST(ChannelMaxima, NanOfOneTokenIsNoSink) {
  FloatModel model = load_float_model(tiny_model_folder("tiny-llama"));
  const Graph graph = build_graph(model.config, Recipe{});
  const int down = graph.find_site("layers.1.mlp.down_proj.in");
  Window window(40, 3);
  window[39] = 5;
  model.weights.at("embed_tokens.weight")[5][0] = std::numeric_limits<float>::quiet_NaN();
  const std::string error = error_of([&] { channel_maxima(model, graph, {window}, {down}, {}); });
  EXPECT_NE(error.find("holds NaN or infinity"), std::string::npos) << error;
}

TEST(WithoutSinks, KeepsWhatIsNotFinite) {
  torch::Tensor value = torch::ones({1, 40, 3});
  value[0][4][1] = 1e4f;
  EXPECT_EQ(without_sinks(value).size(0), 39);
  for (const float bad : {INFINITY, -INFINITY, NAN}) {
    torch::Tensor spoilt = value.clone();
    spoilt[0][9][2] = bad;
    EXPECT_FALSE(torch::isfinite(without_sinks(spoilt)).all().item<bool>()) << bad;
  }
}

}  // namespace
}  // namespace qnpu
