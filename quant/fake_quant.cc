#include "quant/fake_quant.h"

#include <algorithm>
#include <map>

namespace qnpu {
namespace {

// [N, K] integers of a weight or table, unpacked if it is stored as nibbles.
torch::Tensor integers(const TensorView& view, int64_t rows, int64_t cols) {
  torch::Tensor q = torch::empty({rows, cols}, torch::kFloat32);
  float* out = q.data_ptr<float>();
  const auto count = rows * cols;
  if (view.dtype == "U8") {
    const auto packed = view.as<uint8_t>();
    for (int64_t i = 0; i < count; ++i) {
      const int nibble = (packed[static_cast<size_t>(i / 2)] >> (i % 2 * 4)) & 15;
      out[i] = static_cast<float>(nibble >= 8 ? nibble - 16 : nibble);
    }
  } else if (view.dtype == "I8") {
    std::copy_n(view.as<int8_t>().begin(), count, out);
  } else if (view.dtype == "I16") {
    std::copy_n(view.as<int16_t>().begin(), count, out);
  } else {
    std::copy_n(view.as<int32_t>().begin(), count, out);
  }
  return q;
}

torch::Tensor floats(const TensorView& view) {
  torch::Tensor values = torch::empty({view.elements()}, torch::kFloat32);
  std::copy_n(view.as<float>().begin(), view.elements(), values.data_ptr<float>());
  return values;
}

void set_linear(Simulator& simulator, const Artifact& artifact, const Node& node) {
  const Graph& graph = artifact.graph;
  const Site& site = graph.site(node.weight);
  const torch::Tensor scale = floats(artifact.tensors.at(site.name + ".scale"));  // [N]
  const torch::Tensor q = integers(artifact.tensors.at(site.name), site.rows, site.cols);
  simulator.set_weight(site.name, q * scale.unsqueeze(1));
  if (!node.bias) return;
  const std::string name = node.name + ".bias";
  // 16-bit linears store bias / 256 (base/law.h).
  const double factor = bitwidth(graph.site(node.out).qparams.dtype) == 16 ? 256.0 : 1.0;
  const double x_scale = graph.site(node.in[0]).qparams.scale[0];
  const torch::Tensor bias = integers(artifact.tensors.at(name), 1, site.rows).squeeze(0);
  simulator.set_weight(name, bias * scale * (x_scale * factor));
}

void set_table(Simulator& simulator, const Artifact& artifact, const Site& site) {
  const TensorView& view = artifact.tensors.at(site.name);
  const torch::Tensor q =
      integers(view, view.shape.size() == 1 ? 1 : view.shape[0], view.shape.back());
  simulator.set_weight(site.name, (q * site.qparams.scale[0]).reshape(view.shape));
}

// What the NPU cuts off by floor before it rounds (docs/numerics.md): of 16-bit products the lowest
// 8 bits of the sum, of RMSNorm everything below a step. The mean of what is lost is not small
// beside a 16-bit step where weights are coarse. Real size of that step by site: [1] or, per
// channel, [N].
std::map<int, torch::Tensor> steps_by_site(const Artifact& artifact) {
  const Graph& graph = artifact.graph;
  const auto scale = [&](int site) { return double{graph.site(site).qparams.scale[0]}; };
  std::map<int, torch::Tensor> steps;
  for (const Node& node : graph.nodes) {
    if (bitwidth(graph.site(node.out).qparams.dtype) != 16) continue;
    if (node.op == Op::kLinear) {
      const TensorView& scales = artifact.tensors.at(graph.site(node.weight).name + ".scale");
      steps[node.out] = floats(scales) * (256.0 * scale(node.in[0]));
    } else if (node.op == Op::kScores || node.op == Op::kContext) {
      steps[node.out] = torch::full({1}, 256.0 * scale(node.in[0]) * scale(node.in[1]));
    } else if (node.op == Op::kRmsNorm) {
      steps[node.out] = torch::full({1}, scale(node.out));
    }
  }
  return steps;
}

// floor(x / step) * step. Sums are integers, multiples of step / 256: half of that keeps an exact
// multiple of `step` where it is, whatever float made of it.
torch::Tensor cut(const torch::Tensor& x, const torch::Tensor& step) {
  const torch::Tensor s = step.to(x.device());
  return torch::floor(x / s + 1.0 / 512) * s;
}

}  // namespace

void fake_quantize(const float* x, int64_t count, const QParams& qparams, float* y) {
  const auto [qmin, qmax] = integer_range(qparams.dtype);
  const float scale = qparams.scale[0];
  const int zero_point = qparams.zero_point[0];
  const auto low = static_cast<float>(qmin - zero_point);
  const auto high = static_cast<float>(qmax - zero_point);
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
#pragma omp parallel for simd schedule(static) if (count > 65536)
  for (int64_t i = 0; i < count; ++i) {
    const float v = std::min(std::max(x[i] / scale, low), high);
    y[i] = ((v + kMagic) - kMagic) * scale;
  }
}

torch::Tensor fake_quantized(const torch::Tensor& value, const QParams& qparams) {
  if (!value.is_cpu()) {
    const auto [qmin, qmax] = integer_range(qparams.dtype);
    const int zero_point = qparams.zero_point[0];
    const float scale = qparams.scale[0];
    return (value / scale).clamp(qmin - zero_point, qmax - zero_point).round() * scale;
  }
  const torch::Tensor x = value.contiguous();
  torch::Tensor y = torch::empty_like(x);
  fake_quantize(x.data_ptr<float>(), x.numel(), qparams, y.data_ptr<float>());
  return y;
}

SiteHook site_quant_hook(const Graph& graph) {
  return [&graph](int site, const torch::Tensor& value) {
    const QParams& qparams = graph.site(site).qparams;
    if (qparams.scale.empty() || bitwidth(qparams.dtype) > 8) return value;
    return fake_quantized(value, qparams);
  };
}

SiteHook fake_quant_hook(const Artifact& artifact) {
  return [&graph = artifact.graph, steps = steps_by_site(artifact)](int site,
                                                                    const torch::Tensor& value) {
    const QParams& qparams = graph.site(site).qparams;
    if (qparams.scale.empty()) return value;
    const auto found = steps.find(site);
    return fake_quantized(found == steps.end() ? value : cut(value, found->second), qparams);
  };
}

void set_node_weights(Simulator& simulator, const Artifact& artifact, const Node& node) {
  if (node.weight < 0) return;
  if (node.op == Op::kLinear) {
    set_linear(simulator, artifact, node);
  } else {
    set_table(simulator, artifact, artifact.graph.site(node.weight));
  }
}

// The artifact's own integers; a hook that rounds them again changes nothing.
void set_artifact_prefix(Simulator& simulator, const Artifact& artifact) {
  const Graph& graph = artifact.graph;
  std::map<std::string, torch::Tensor> rows;
  for (const Node& node : graph.nodes) {
    if (node.op != Op::kAppend || graph.prefix_tokens.empty()) continue;
    const Site& cache = graph.site(node.out);
    const TensorView& view = artifact.tensors.at(cache.name + ".prefix");
    rows[cache.name] = integers(view, graph.prefix_length(), cache.cols) * cache.qparams.scale[0];
  }
  simulator.set_prefix(rows);
}

void set_artifact_weights(Simulator& simulator, const Artifact& artifact) {
  for (const Node& node : artifact.graph.nodes) set_node_weights(simulator, artifact, node);
  set_artifact_prefix(simulator, artifact);
}

}  // namespace qnpu
