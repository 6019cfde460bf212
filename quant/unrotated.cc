#include "quant/unrotated.h"

#include "quant/calibrate.h"

namespace qnpu {

UnrotatedInputs::UnrotatedInputs(const Graph& graph, const Rotations& rotations) {
  const auto transposed = [](const torch::Tensor& r) { return r.t().to(torch::kFloat32); };
  for (const Node& node : graph.nodes) {
    if (node.op != Op::kLinear || back_.contains(node.in[0])) continue;
    if (node.name.ends_with("down_proj")) continue;  // neither R1 nor R2 is in its basis
    if (!node.name.ends_with("o_proj")) {
      if (rotations.r1.defined()) back_[node.in[0]] = transposed(rotations.r1);
    } else if (!rotations.r2.empty()) {
      back_[node.in[0]] = transposed(rotations.r2[static_cast<size_t>(node.layer)]);
    }
  }
}

SiteHook UnrotatedInputs::hook() {
  if (back_.empty()) return {};
  return [this](int site, const torch::Tensor& value) {
    if (back_.contains(site)) see(site, value);
    return value;
  };
}

void UnrotatedInputs::see(int site, const torch::Tensor& value) {
  int& tokens = tokens_[site];
  if (tokens >= kUnrotatedTokens) return;
  const torch::Tensor rows = without_sinks(value);
  tokens += static_cast<int>(rows.numel() / rows.size(-1));
  const torch::Tensor back = back_.at(site).to(value.device());
  const torch::Tensor parts = rows.reshape({-1, back.size(0)});
  const torch::Tensor turned = torch::matmul(parts, back).cpu().contiguous();
  statistics_[site].add(turned.data_ptr<float>(), turned.numel());
}

}  // namespace qnpu
