#include "quant/balance_heads.h"

#include "base/status.h"
#include "quant/channel_pairs.h"
#include "quant/spill.h"

namespace qnpu {
namespace {

using torch::Tensor;

constexpr double kSmallest = 1e-5;  // of a maximum: a channel that is always 0 stays as it is

// The pair from v_proj to o_proj.
const ChannelPair& values_pair() {
  for (const ChannelPair& pair : channel_pairs()) {
    if (pair.values) return pair;
  }
  fail("There is no pair of v_proj and o_proj.");
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

void multiply(FloatModel& model, const std::string& name, const Tensor& s) {
  const auto found = model.weights.find(name);
  if (found == model.weights.end()) return;
  Tensor& tensor = found->second;
  const Tensor factor = tensor.dim() == 2 ? s.unsqueeze(1) : s;
  replace(tensor, (tensor * factor).to(tensor.scalar_type()));
}

// s [KV, hd]: of the keys 1 / s, of the queries s.
void scale_keys(FloatModel& model, int layer, const Tensor& s) {
  const std::string attention = in_layer(layer, "self_attn.");
  const Tensor per_key = s.flatten();
  if (model.config.qk_norm) {
    multiply(model, attention + "k_norm.weight", 1.0 / s[0]);
    multiply(model, attention + "q_norm.weight", s[0]);
  } else {
    const int64_t rows = int64_t{model.config.num_heads} * model.config.head_dim;
    const Tensor per_query = to_columns(per_key, rows, model.config.head_dim);
    for (const char* part : {".weight", ".bias"}) {
      multiply(model, attention + "k_proj" + part, 1.0 / per_key);
      multiply(model, attention + "q_proj" + part, per_query);
    }
  }
  const auto prefix = model.prefix.rows.find(attention + "k_cache");
  if (prefix != model.prefix.rows.end()) {
    prefix->second = (prefix->second / per_key).to(prefix->second.scalar_type());
  }
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
