#include "quant/smooth.h"

#include "base/status.h"
#include "quant/spill.h"

namespace qnpu {
namespace {

constexpr double kSmallest = 1e-5;
constexpr double kTableSteps = 32767;  // of a gamma table on each side of zero
constexpr char kValues[] = "self_attn.v_proj";

// One activation, what divides it, and the linears that read it; names within a layer.
struct Pair {
  const char* input;
  const char* divider;
  std::vector<const char*> readers;
};

const std::vector<Pair>& pairs() {
  static const std::vector<Pair> all = {
      {"self_attn.qkv_proj.in",
       "input_layernorm",
       {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}},
      {"mlp.gate_up_proj.in", "post_attention_layernorm", {"mlp.gate_proj", "mlp.up_proj"}},
      {"mlp.down_proj.in", "mlp.up_proj", {"mlp.down_proj"}},
      {"self_attn.o_proj.in", kValues, {"self_attn.o_proj"}},
  };
  return all;
}

// Grouped heads: several channels of o_proj's input come from one row of v_proj.
bool applies(const Pair& pair, const ModelConfig& config) {
  return pair.divider != std::string(kValues) || config.num_heads == config.num_kv_heads;
}

class Smoother {
 public:
  Smoother(FloatModel& model, int layer, double alpha)
      : weights_(model.weights), prefix_(model.prefix.rows), layer_(layer), alpha_(alpha) {}

  void apply(const Pair& pair, const torch::Tensor& maxima) {
    torch::Tensor s = factors(pair, maxima);
    torch::Tensor& divider = weight(pair.divider, ".weight");
    if (divider.dim() == 1) {  // a norm, whose gamma is 1
      divider = on_table_grid(1.0 / s);
      s = 1.0 / divider.to(torch::kFloat64);
    } else {
      replace(divider, (divider / s.unsqueeze(1)).to(torch::kFloat32));
      const auto bias = weights_.find(name(pair.divider, ".bias"));
      if (bias != weights_.end()) bias->second = (bias->second / s).to(torch::kFloat32);
      if (pair.divider == std::string(kValues)) divide_prefix(s);
    }
    for (const char* reader : pair.readers) {
      torch::Tensor& w = weight(reader, ".weight");
      replace(w, (w * s).to(torch::kFloat32));
    }
  }

 private:
  void divide_prefix(const torch::Tensor& s) {
    const auto rows = prefix_.find(name("self_attn.v_cache", ""));  // [P, KV * hd]
    if (rows != prefix_.end()) rows->second = (rows->second / s).to(torch::kFloat32);
  }

  std::string name(const char* module, const char* part) const {
    return fmt::format("layers.{}.{}{}", layer_, module, part);
  }
  torch::Tensor& weight(const char* module, const char* part) {
    return weights_.at(name(module, part));
  }

  torch::Tensor factors(const Pair& pair, const torch::Tensor& maxima) {
    const torch::Device device = weight(pair.divider, ".weight").device();
    const torch::Tensor wide = maxima.to(device, torch::kFloat64);
    torch::Tensor largest = torch::zeros_like(wide);
    for (const char* reader : pair.readers) {
      largest = torch::maximum(largest, weight(reader, ".weight").abs().amax(0));
    }
    const torch::Tensor x = wide.clamp_min(kSmallest).pow(alpha_);
    return (x / largest.clamp_min(kSmallest).pow(1.0 - alpha_)).clamp_min(kSmallest);
  }

  // Multiples of largest / 32767, at least one: what the table can hold.
  static torch::Tensor on_table_grid(const torch::Tensor& gamma) {
    const double step = gamma.max().item<double>() / kTableSteps;
    return (torch::round(gamma / step).clamp_min(1.0) * step).to(torch::kFloat32);
  }

  std::map<std::string, torch::Tensor>& weights_;
  std::map<std::string, torch::Tensor>& prefix_;
  const int layer_;
  const double alpha_;
};

int input_site(const Graph& graph, int layer, const Pair& pair) {
  return graph.find_site(fmt::format("layers.{}.{}", layer, pair.input));
}

}  // namespace

std::vector<int> smooth_sites(const Graph& graph) {
  std::vector<int> sites;
  for (int layer = 0; layer < graph.config.num_layers; ++layer) {
    for (const Pair& pair : pairs()) {
      if (applies(pair, graph.config)) sites.push_back(input_site(graph, layer, pair));
    }
  }
  return sites;
}

void smooth(FloatModel& model, const Graph& graph, const std::map<int, torch::Tensor>& maxima,
            const SmoothSpec& spec) {
  const torch::NoGradGuard no_grad;
  for (int layer = 0; layer < graph.config.num_layers; ++layer) {
    Smoother smoother(model, layer, spec.alpha);
    for (const Pair& pair : pairs()) {
      if (!applies(pair, graph.config)) continue;
      smoother.apply(pair, maxima.at(input_site(graph, layer, pair)));
    }
  }
}

}  // namespace qnpu
