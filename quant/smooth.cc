#include "quant/smooth.h"

#include "quant/channel_pairs.h"

namespace qnpu {
namespace {

constexpr double kSmallest = 1e-5;

// Grouped heads: several channels of o_proj's input come from one row of v_proj.
bool applies(const ChannelPair& pair, const ModelConfig& config) {
  return !pair.values || config.num_heads == config.num_kv_heads;
}

int input_site(const Graph& graph, int layer, const ChannelPair& pair) {
  return graph.find_site(in_layer(layer, pair.input));
}

torch::Tensor factors(const FloatModel& model, int layer, const ChannelPair& pair,
                      const torch::Tensor& maxima, double alpha) {
  const torch::Tensor wide = maxima.to(device_of(model), torch::kFloat64);
  torch::Tensor largest = torch::zeros_like(wide);
  for (const char* reader : pair.readers) {
    const torch::Tensor& w = model.weights.at(in_layer(layer, reader) + ".weight");
    largest = torch::maximum(largest, w.abs().amax(0));
  }
  const torch::Tensor x = wide.clamp_min(kSmallest).pow(alpha);
  return (x / largest.clamp_min(kSmallest).pow(1.0 - alpha)).clamp_min(kSmallest);
}

}  // namespace

std::vector<int> smooth_sites(const Graph& graph) {
  std::vector<int> sites;
  for (int layer = 0; layer < graph.config.num_layers; ++layer) {
    for (const ChannelPair& pair : channel_pairs()) {
      if (applies(pair, graph.config)) sites.push_back(input_site(graph, layer, pair));
    }
  }
  return sites;
}

void smooth(FloatModel& model, const Graph& graph, const std::map<int, torch::Tensor>& maxima,
            const SmoothSpec& spec) {
  const torch::NoGradGuard no_grad;
  for (int layer = 0; layer < graph.config.num_layers; ++layer) {
    for (const ChannelPair& pair : channel_pairs()) {
      if (!applies(pair, graph.config)) continue;
      const torch::Tensor& largest = maxima.at(input_site(graph, layer, pair));
      divide_channels(model, layer, pair, factors(model, layer, pair, largest, spec.alpha));
    }
  }
}

}  // namespace qnpu
