#include "quant/prefix.h"

#include <utility>

#include "quant/simulator.h"

namespace qnpu {

Prefix compute_prefix(const FloatModel& model, const Graph& graph, std::vector<int> tokens) {
  Prefix prefix;
  if (tokens.empty()) return prefix;
  const SiteHook record = [&](int site, const torch::Tensor& value) {
    const Site& s = graph.site(site);
    if (s.role == Role::kKCache || s.role == Role::kVCache) {
      prefix.rows[s.name] = value.squeeze(0).contiguous();  // [P, cols]
    }
    return value;
  };
  Simulator simulator(model, graph);
  simulator.set_prefix({});
  const std::vector<int64_t> ids(tokens.begin(), tokens.end());
  simulator.forward(torch::tensor(ids, torch::kInt64).unsqueeze(0), record);
  prefix.tokens = std::move(tokens);
  return prefix;
}

}  // namespace qnpu
