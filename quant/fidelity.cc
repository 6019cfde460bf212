#include "quant/fidelity.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <span>

#include "eval/metrics.h"
#include "eval/sqnr.h"
#include "quant/fake_quant.h"
#include "quant/online.h"

namespace qnpu {
namespace {

using torch::Tensor;

std::set<int> watched_sites(const Graph& graph) {
  std::set<int> sites = {graph.nodes.back().out};
  for (const Node& node : graph.nodes) {
    if (node.op == Op::kLinear) sites.insert(node.in[0]);
    if (node.op == Op::kAdd && node.name.ends_with(".residual")) sites.insert(node.out);
  }
  return sites;
}

Tensor tokens_of(const Window& window) {
  const std::vector<int64_t> ids(window.begin(), window.end());
  return torch::tensor(ids, torch::kInt64).unsqueeze(0);
}

Tensor rows_of(const Tensor& value) {
  return value.cpu().flatten(0, -2).contiguous();
}  // [T, cols]

std::span<const float> floats(const Tensor& tensor) {
  return {tensor.data_ptr<float>(), static_cast<size_t>(tensor.numel())};
}

std::span<const float> row(const Tensor& tensor, int64_t index) {
  return floats(tensor.select(0, index));
}

double sqnr_of(const Tensor& reference, const Tensor& value) {
  const Tensor keep = ordinary_tokens(reference.unsqueeze(0)).squeeze(0);
  const Tensor x = reference.index({keep}).contiguous();
  const Tensor y = value.index({keep}).contiguous();
  return std::clamp(sqnr_db(floats(x), floats(y)), -200.0, 200.0);
}

// The walk of Simulator::forward, with one layer's weights at a time.
class FrozenRun {
 public:
  explicit FrozenRun(const Artifact& artifact)
      : artifact_(artifact),
        model_(simulated_model(artifact)),
        simulator_(model_, artifact.graph) {}

  void run(const Window& window, const SiteHook& hook) {
    const std::vector<Node>& nodes = artifact_.graph.nodes;
    set_artifact_prefix(simulator_, artifact_);
    take(0, 1);
    Simulator::Values values = simulator_.embed(tokens_of(window), hook);
    drop(0, 1);
    const int count = static_cast<int>(nodes.size());
    for (int begin = 1, end; begin < count; begin = end) {
      for (end = begin; end < count && nodes[end].layer == nodes[begin].layer;) ++end;
      take(begin, end);
      simulator_.advance(begin, end, values, hook);
      drop(begin, end);
    }
  }

 private:
  void take(int begin, int end) {
    for (int i = begin; i < end; ++i) {
      set_node_weights(simulator_, artifact_, artifact_.graph.nodes[i]);
    }
  }
  void drop(int begin, int end) {
    for (int i = begin; i < end; ++i) {
      const Node& node = artifact_.graph.nodes[i];
      if (node.weight < 0) continue;
      simulator_.set_weight(artifact_.graph.site(node.weight).name, torch::empty({0}));
    }
  }

  const Artifact& artifact_;
  const FloatModel model_;
  Simulator simulator_;
};

void compare_logits(const FloatRun& reference, const Tensor& logits, Fidelity& fidelity) {
  const Tensor& wanted = reference.values.at("logits");
  DivergenceSum divergence;
  LikelihoodSum likelihood, float_likelihood;
  for (int t = 0; t + 1 < std::ssize(reference.window); ++t) {
    const int next = reference.window[t + 1];
    divergence.add(row(wanted, t), row(logits, t));
    likelihood.add(row(logits, t), next);
    float_likelihood.add(row(wanted, t), next);
  }
  fidelity.tokens = static_cast<int>(divergence.tokens);
  fidelity.kl_divergence = divergence.kl_divergence();
  fidelity.top1_agreement = divergence.top1_agreement();
  fidelity.perplexity = likelihood.perplexity();
  fidelity.float_perplexity = float_likelihood.perplexity();
}

}  // namespace

FloatRun run_float(const FloatModel& model, const Graph& graph, Window window) {
  const std::set<int> watched = watched_sites(graph);
  FloatRun run{std::move(window), {}};
  const SiteHook keep = [&](int site, const Tensor& value) {
    if (watched.contains(site)) run.values[graph.site(site).name] = rows_of(value).clone();
    return value;
  };
  Simulator simulator(model, graph);
  const Tensor hidden = simulator.forward(tokens_of(run.window), keep);
  simulator.logits(hidden.squeeze(0), keep);
  return run;
}

Fidelity measure_fidelity(const FloatRun& reference, const Artifact& artifact) {
  const SiteHook rounding = simulation_hook(artifact);
  Fidelity fidelity;
  Tensor logits;
  FrozenRun(artifact).run(reference.window, [&](int site, const Tensor& value) {
    const Tensor rounded = rounding(site, value);
    const std::string& name = artifact.graph.site(site).name;
    const auto found = reference.values.find(name);
    if (found == reference.values.end()) return rounded;
    const Tensor rows = rows_of(rounded);
    fidelity.sqnr.emplace_back(name, sqnr_of(found->second, rows));
    if (name == "logits") logits = rows;
    return rounded;
  });
  compare_logits(reference, logits, fidelity);
  return fidelity;
}

nlohmann::json to_json(const Fidelity& fidelity) {
  nlohmann::json sites = nlohmann::json::array();
  for (const auto& [name, sqnr] : fidelity.sqnr) sites.push_back({{"name", name}, {"sqnr", sqnr}});
  return {{"tokens", fidelity.tokens},
          {"perplexity", fidelity.perplexity},
          {"float_perplexity", fidelity.float_perplexity},
          {"kl_divergence", fidelity.kl_divergence},
          {"top1_agreement", fidelity.top1_agreement},
          {"sites", sites}};
}

}  // namespace qnpu
