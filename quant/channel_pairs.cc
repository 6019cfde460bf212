#include "quant/channel_pairs.h"

#include "base/status.h"
#include "quant/spill.h"

namespace qnpu {
namespace {

using torch::Tensor;

constexpr double kTableSteps = 32767;  // of a gamma table on each side of zero

// Multiples of largest / 32767, at least one: what the table can hold.
Tensor on_table_grid(const Tensor& gamma) {
  const double step = gamma.max().item<double>() / kTableSteps;
  return torch::round(gamma / step).clamp_min(1.0) * step;
}

// What the norm divides by, in the end.
Tensor divide_gamma(Tensor& gamma, const Tensor& s) {
  const Tensor before = gamma.to(torch::kFloat64);
  gamma = on_table_grid(before / s).to(gamma.scalar_type());
  return before / gamma.to(torch::kFloat64);
}

void divide(Tensor& tensor, const Tensor& s) { tensor = (tensor / s).to(tensor.scalar_type()); }

}  // namespace

const std::vector<ChannelPair>& channel_pairs() {
  static const std::vector<ChannelPair> all = {
      {"self_attn.qkv_proj.in",
       "input_layernorm",
       {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
       true,
       false},
      {"mlp.gate_up_proj.in",
       "post_attention_layernorm",
       {"mlp.gate_proj", "mlp.up_proj"},
       true,
       false},
      {"mlp.down_proj.in", "mlp.up_proj", {"mlp.down_proj"}, false, false},
      {"self_attn.o_proj.in", "self_attn.v_proj", {"self_attn.o_proj"}, false, true},
  };
  return all;
}

std::string in_layer(int layer, const std::string& module) {
  return fmt::format("layers.{}.{}", layer, module);
}

Tensor to_columns(const Tensor& channels, int64_t columns, int64_t head_dim) {
  const int64_t group = columns / channels.numel();
  if (group == 1) return channels;
  return channels.reshape({-1, 1, head_dim}).expand({-1, group, head_dim}).reshape({columns});
}

Tensor to_channels(const Tensor& columns, int64_t channels, int64_t head_dim) {
  const int64_t group = columns.numel() / channels;
  if (group == 1) return columns;
  return columns.reshape({-1, group, head_dim}).sum(1).flatten();
}

void divide_output(FloatModel& model, const std::string& module, const Tensor& s) {
  Tensor& weight = model.weights.at(module + ".weight");
  const Tensor divisor = weight.dim() == 2 ? s.unsqueeze(1) : s;
  replace(weight, (weight / divisor).to(weight.scalar_type()));
  const auto bias = model.weights.find(module + ".bias");
  if (bias != model.weights.end()) divide(bias->second, s);
}

void divide_prefix(FloatModel& model, const std::string& cache, const Tensor& s) {
  const auto rows = model.prefix.rows.find(cache);
  if (rows != model.prefix.rows.end()) divide(rows->second, s);  // [P, KV * hd]
}

void divide_channels(FloatModel& model, int layer, const ChannelPair& pair, Tensor s) {
  const torch::NoGradGuard no_grad;
  if (pair.norm) {
    s = divide_gamma(model.weights.at(in_layer(layer, pair.divider) + ".weight"), s);
  } else {
    divide_output(model, in_layer(layer, pair.divider), s);
    if (pair.values) divide_prefix(model, in_layer(layer, "self_attn.v_cache"), s);
  }
  for (const char* reader : pair.readers) {
    Tensor& w = model.weights.at(in_layer(layer, reader) + ".weight");
    const Tensor columns = to_columns(s, w.size(1), model.config.head_dim);
    replace(w, (w * columns).to(w.scalar_type()));
  }
}

}  // namespace qnpu
