#include "quant/rounded_model.h"

#include <vector>

#include "quant/spill.h"
#include "quant/weights.h"

namespace qnpu {

torch::Tensor rounded_weight(const torch::Tensor& weight, const Site& site) {
  const torch::Tensor here = weight.cpu();
  const WeightRows rows{here.data_ptr<float>(), here.size(0), here.size(1)};
  std::vector<float> scale = site.qparams.scale;
  if (scale.empty()) {
    scale.resize(static_cast<size_t>(rows.n));
    weight_scales(rows, site.spec, site.rotated, scale.data());
  }
  torch::Tensor integers = torch::empty(weight.sizes(), torch::kInt8);
  round_weights(rows, scale.data(), weight_range(site.spec), integers.data_ptr<int8_t>());
  return integers.to(torch::kFloat32).mul_(torch::tensor(scale).unsqueeze(1)).to(weight.device());
}

FloatModel with_rounded_weights(FloatModel model, const Graph& graph) {
  for (const Node& node : graph.nodes) {
    if (node.op != Op::kLinear || node.layer < 0) continue;
    const Site& site = graph.site(node.weight);
    if (site.spec.block_size != 0) continue;
    torch::Tensor& weight = model.weights.at(site.name);
    replace(weight, rounded_weight(weight.contiguous(), site));
  }
  return model;
}

std::map<int, QParams> learned_ranges(const Graph& graph, const LearnSpec& spec) {
  std::map<int, QParams> learned;
  const auto add = [&](int site) {
    const QParams& qparams = graph.site(site).qparams;
    if (bitwidth(qparams.dtype) <= 8) learned.emplace(site, qparams);
  };
  for (const Node& node : graph.nodes) {
    if (node.op != Op::kLinear || node.layer < 0) continue;
    if (spec.input_scales) add(node.in[0]);
    if (spec.output_scales) add(node.out);
  }
  return learned;
}

}  // namespace qnpu
