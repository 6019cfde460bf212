#include "quant/online.h"

#include <algorithm>
#include <set>

#include "base/status.h"
#include "quant/fake_quant.h"
#include "quant/hadamard.h"

namespace qnpu {
namespace {

// One matrix of each size for all nodes.
class Hadamards {
 public:
  Hadamards(const Recipe& recipe, torch::Device device) : recipe_(recipe), device_(device) {}

  const torch::Tensor& get(int n, const char* what) {
    torch::Tensor& matrix = by_size_[n];
    if (matrix.defined()) return matrix;
    if (!hadamard_signs(n).defined()) {
      fail(
          "recipe '{}': {} needs a Hadamard matrix of size {}, and none is known; set it to "
          "\"none\"",
          recipe_.name, what, n);
    }
    return matrix = hadamard(n).to(device_, torch::kFloat32);
  }

 private:
  const Recipe& recipe_;
  const torch::Device device_;
  std::map<int, torch::Tensor> by_size_;
};

// Each part of n columns of a tensor, if there is one of that name, times a rotation [n, n].
void turn(std::map<std::string, torch::Tensor>& tensors, const std::string& name,
          const torch::Tensor& rotation) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) return;
  const torch::Tensor parts = found->second.unflatten(-1, {-1, rotation.size(0)});
  const torch::Tensor turned =
      torch::matmul(parts.to(torch::kFloat64), rotation.to(torch::kFloat64));
  found->second = turned.to(torch::kFloat32).flatten(-2);
}

Recipe recipe_of(const Artifact& artifact) {
  const auto found = artifact.manifest.find("recipe");
  if (found == artifact.manifest.end()) return {};
  return recipe_from_json(*found, (artifact.folder / "graph.json").string());
}

// How a site is rounded while scales are found at run time.
enum class Rounding { kNone, kStatic, kPerToken };

std::vector<Rounding> dynamic_roundings(const Graph& graph) {
  const auto bits = [&](int site) { return bitwidth(graph.site(site).qparams.dtype); };
  const int count = static_cast<int>(graph.sites.size());
  std::set<int> narrow;  // roots of groups with a site of at most 8 bits
  for (int i = 0; i < count; ++i) {
    if (bits(i) <= 8) narrow.insert(tie_root(graph, i).site);
  }
  std::vector<Rounding> roundings(count, Rounding::kNone);
  for (int i = 0; i < count; ++i) {
    const Role role = graph.site(i).role;
    const bool cache = role == Role::kKCache || role == Role::kVCache;
    if (cache || narrow.count(tie_root(graph, i).site) == 0) roundings[i] = Rounding::kStatic;
  }
  for (const Node& node : graph.nodes) {
    if (node.op == Op::kLinear && bits(node.in[0]) <= 8) {
      roundings[node.in[0]] = Rounding::kPerToken;
    }
  }
  return roundings;
}

torch::Tensor rounded_per_token(const torch::Tensor& x, DType dtype) {
  const int qmax = integer_range(dtype).qmax;
  const torch::Tensor scale = x.abs().amax(-1, /*keepdim=*/true).clamp_min(1e-12) / qmax;
  return torch::round(x / scale) * scale;
}

}  // namespace

OnlineRotations online_rotations(const Graph& graph, const Recipe& recipe, torch::Device device) {
  OnlineRotations rotations;
  Hadamards hadamards(recipe, device);
  for (const Node& node : graph.nodes) {
    const bool rope =
        node.name.ends_with("self_attn.q_rope") || node.name.ends_with("self_attn.k_rope");
    if (recipe.r3 != Rotation::kNone && rope) {
      rotations[node.name] = hadamards.get(graph.config.head_dim, "R3");
    }
    if (recipe.r4 != Rotation::kNone && node.op == Op::kMul) {
      rotations[node.name] = hadamards.get(graph.site(node.out).cols, "R4");
    }
  }
  return rotations;
}

void rotate_online(FloatModel& model, const Graph& graph, const Recipe& recipe) {
  const torch::NoGradGuard no_grad;
  model.online = online_rotations(graph, recipe, device_of(model));
  for (const Node& node : graph.nodes) {
    const auto found = model.online.find(node.name);
    if (found == model.online.end()) continue;
    const std::string layer = fmt::format("layers.{}.", node.layer);
    if (node.op == Op::kMul) turn(model.weights, layer + "mlp.down_proj.weight", found->second);
    if (node.name.ends_with("k_rope")) {
      turn(model.prefix.rows, layer + "self_attn.k_cache", found->second);
    }
  }
}

SiteHook dynamic_quant_hook(const Artifact& artifact) {
  return [&graph = artifact.graph, roundings = dynamic_roundings(artifact.graph),
          fixed = fake_quant_hook(artifact)](int site, const torch::Tensor& value) {
    const Rounding rounding = roundings[static_cast<size_t>(site)];
    if (rounding == Rounding::kNone) return value;
    if (rounding == Rounding::kStatic) return fixed(site, value);
    return rounded_per_token(value, graph.site(site).qparams.dtype);
  };
}

FloatModel simulated_model(const Artifact& artifact) {
  FloatModel model;
  model.config = artifact.graph.config;
  model.online = online_rotations(artifact.graph, recipe_of(artifact));
  return model;
}

SiteHook simulation_hook(const Artifact& artifact) {
  return recipe_of(artifact).dynamic_activations ? dynamic_quant_hook(artifact)
                                                 : fake_quant_hook(artifact);
}

}  // namespace qnpu
