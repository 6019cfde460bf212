#include "quant/balance_heads.h"

#include <algorithm>

#include "quant/channel_pairs.h"

namespace qnpu {
namespace {

using torch::Tensor;

constexpr double kSmallest = 1e-5;  // of a maximum: a channel that is always 0 stays as it is

// From v_proj to o_proj.
const ChannelPair& values_pair() {
  const std::vector<ChannelPair>& all = channel_pairs();
  return *std::find_if(all.begin(), all.end(), [](const ChannelPair& pair) { return pair.values; });
}

int site_of(const Graph& graph, int layer, const char* name) {
  return graph.find_site(in_layer(layer, name));
}

// [heads * hd] -> [KV, heads / KV, hd]: side by side what shares keys and values.
Tensor by_kv_head(const Tensor& columns, const ModelConfig& config) {
  return columns.reshape({config.num_kv_heads, -1, config.head_dim});
}

// [KV, hd]
Tensor largest(const FloatModel& model, const Tensor& maxima) {
  return by_kv_head(maxima.to(device_of(model), torch::kFloat64), model.config)
      .amax(1)
      .clamp_min(kSmallest);
}

// [KV, hd] -> [KV, hd / 2]
Tensor pairs_of(const Tensor& channels) { return channels.unflatten(1, {2, -1}).amax(1); }

// s [KV, hd]
Tensor key_factors(const Tensor& q, const Tensor& k, bool shared) {
  Tensor query = pairs_of(q), key = pairs_of(k);
  if (shared) {
    query = query.amax(0, /*keepdim=*/true).expand_as(query);
    key = key.amax(0, /*keepdim=*/true).expand_as(key);
  }
  return (key / query).sqrt().repeat({1, 2});
}

// s [KV, hd]: keys / s, queries * s.
void scale_keys(FloatModel& model, int layer, const Tensor& s) {
  const std::string attention = in_layer(layer, "self_attn.");
  const Tensor per_key = s.flatten();
  if (model.config.qk_norm) {
    divide_output(model, attention + "k_norm", s[0]);
    divide_output(model, attention + "q_norm", 1.0 / s[0]);
  } else {
    const int64_t rows = int64_t{model.config.num_heads} * model.config.head_dim;
    divide_output(model, attention + "k_proj", per_key);
    divide_output(model, attention + "q_proj",
                  1.0 / to_columns(per_key, rows, model.config.head_dim));
  }
  divide_prefix(model, attention + "k_cache", per_key);
}

// [KV * hd]
Tensor value_factors(const FloatModel& model, int layer, const Tensor& maxima) {
  const Tensor m = largest(model, maxima);
  const Tensor& w = model.weights.at(in_layer(layer, "self_attn.o_proj.weight"));
  const Tensor squares = w.to(torch::kFloat64).square().sum(0);
  const Tensor norm = by_kv_head(squares, model.config).sum(1).sqrt().clamp_min(kSmallest);
  const Tensor s = (m / norm).sqrt();
  const Tensor size = (m / s).square().mean(1, /*keepdim=*/true).sqrt();  // of each head
  return (s * size / size.mean()).flatten();
}

}  // namespace

std::vector<int> balance_sites(const Graph& graph, const BalanceHeadsSpec& spec) {
  std::vector<int> sites;
  for (int layer = 0; layer < graph.config.num_layers; ++layer) {
    if (spec.keys) {
      sites.push_back(site_of(graph, layer, "self_attn.q_rope.out"));
      sites.push_back(site_of(graph, layer, "self_attn.k_rope.out"));
    }
    if (spec.values) sites.push_back(site_of(graph, layer, values_pair().input));
  }
  return sites;
}

void balance_heads(FloatModel& model, const Graph& graph, const std::map<int, Tensor>& maxima,
                   const BalanceHeadsSpec& spec) {
  const torch::NoGradGuard no_grad;
  for (int layer = 0; layer < graph.config.num_layers; ++layer) {
    const auto of = [&](const char* name) { return maxima.at(site_of(graph, layer, name)); };
    if (spec.keys) {
      const Tensor q = largest(model, of("self_attn.q_rope.out"));
      const Tensor k = largest(model, of("self_attn.k_rope.out"));
      scale_keys(model, layer, key_factors(q, k, model.config.qk_norm));
    }
    if (spec.values) {
      const ChannelPair& pair = values_pair();
      divide_channels(model, layer, pair, value_factors(model, layer, of(pair.input)));
    }
  }
}

}  // namespace qnpu
