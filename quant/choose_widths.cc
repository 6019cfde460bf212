#include "quant/choose_widths.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/status.h"
#include "io/safetensors.h"
#include "model/artifact.h"
#include "model/budget.h"
#include "quant/divergence_probe.h"
#include "quant/fake_quant.h"
#include "quant/ranges.h"
#include "quant/rounded_model.h"

namespace qnpu {
namespace {

bool is_input(const WidthGroup& group) { return group.wide_bits == 16; }

void widen(Recipe& recipe, const WidthGroup& group) {
  for (const std::string& site : group.sites) {
    recipe.rules.push_back({.match = site, .bitwidth = group.wide_bits});
  }
}

Graph widened(const Graph& graph, Recipe recipe, const WidthGroup& group) {
  widen(recipe, group);
  return build_graph(graph.config, recipe);
}

// Data alone: what a group adds does not depend on where its tensors lie.
int64_t data_bytes(const Graph& graph) {
  int64_t sum = 0;
  for (const TensorSpec& tensor : required_tensors(graph, 1)) {
    int64_t elements = 1;
    for (const int64_t size : tensor.shape) elements *= size;
    sum += elements * static_cast<int64_t>(dtype_size(tensor.dtype));
  }
  return sum;
}

// Sites of at most 8 bits that are wider in `wide`.
std::map<int, QParams> narrow_sites(const Graph& graph, const Graph& wide) {
  std::map<int, QParams> sites;
  for (const Site& site : wide.sites) {
    const int narrow = graph.find_site(site.name);
    if (narrow < 0) continue;
    const QParams& qparams = graph.site(narrow).qparams;
    if (bitwidth(qparams.dtype) <= 8 && bitwidth(site.qparams.dtype) > 8) sites[narrow] = qparams;
  }
  return sites;
}

int spare_inputs(const Recipe& recipe, const Graph& graph) {
  int wide = 0;
  for (const Site& site : graph.sites) {
    if (site.name.ends_with("mlp.down_proj.in") && bitwidth(site.qparams.dtype) == 16) ++wide;
  }
  return std::max(0, parse_budget(recipe.budget).wide_layers(graph.config.num_layers) - wide);
}

double weight_divergence(DivergenceProbe& probe, const FloatModel& model, const Graph& graph,
                         const WidthGroup& group) {
  for (const std::string& name : group.sites) {
    const torch::Tensor weight = model.weights.at(name).contiguous();
    probe.set_weight(name, rounded_weight(weight, graph.site(graph.find_site(name))));
  }
  const double result = probe.divergence(group.layer);
  for (const std::string& name : group.sites) probe.set_weight(name, model.weights.at(name));
  return result;
}

// `graph` holds QParams.
double input_divergence(DivergenceProbe& probe, const Recipe& recipe, const Graph& graph,
                        const WidthGroup& group) {
  const auto narrow = narrow_sites(graph, widened(graph, recipe, group));
  return probe.divergence(group.layer, [&](int site, const torch::Tensor& value) {
    const auto found = narrow.find(site);
    return found == narrow.end() ? value : fake_quantized(value, found->second);
  });
}

// By falling divergence per byte.
std::vector<size_t> by_worth(const std::vector<WidthGroup>& groups) {
  std::vector<size_t> order(groups.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto worth = [&](size_t i) {
    return groups[i].divergence / static_cast<double>(std::max<int64_t>(1, groups[i].bytes));
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return worth(a) > worth(b); });
  return order;
}

struct Filled {
  std::vector<size_t> taken;
  double divergence = 0.0;  // saved
  size_t left_out = 0;      // the first that would have fitted before; none: the number of groups
};

Filled fill(const std::vector<WidthGroup>& groups, const std::vector<size_t>& order, int64_t bytes,
            int inputs) {
  const int64_t all_bytes = bytes;
  Filled filled;
  filled.left_out = groups.size();
  for (const size_t i : order) {
    const WidthGroup& group = groups[i];
    if (group.bytes > all_bytes || (is_input(group) && inputs == 0)) continue;
    if (group.bytes > bytes) {
      if (filled.left_out == groups.size()) filled.left_out = i;
      continue;
    }
    bytes -= group.bytes;
    if (is_input(group)) --inputs;
    filled.taken.push_back(i);
    filled.divergence += group.divergence;
  }
  return filled;
}

}  // namespace

int64_t smallest_bytes(const Recipe& recipe, const Graph& graph, int positions) {
  const int64_t smallest = tensor_file_bytes(graph, positions);
  const Budget budget = parse_budget(recipe.budget);
  if (budget.bytes != 0 && smallest > budget.bytes) {
    const bool will_grow = recipe.split && graph.config.intermediate_sizes.empty();
    fail(
        "the budget allows {} of weights and tables, but with every width at its smallest they "
        "have {}: give at least size<={}{}",
        budget_size(budget.bytes), budget_size(smallest), budget_size(smallest),
        will_grow ? ", and a little more for channels that will be split" : "");
  }
  return smallest;
}

std::vector<WidthGroup> width_groups(const Recipe& recipe, const Graph& graph) {
  std::vector<WidthGroup> groups;
  std::map<int, size_t> by_input;
  const bool inputs = spare_inputs(recipe, graph) > 0;
  for (const Node& node : graph.nodes) {
    if (node.op != Op::kLinear) continue;
    const Site& weight = graph.site(node.weight);
    const Site& in = graph.site(node.in[0]);
    if (weight.spec.bitwidth == 4 && weight.spec.block_size == 0) {
      const auto [found, is_new] = by_input.try_emplace(node.in[0], groups.size());
      const std::string name = in.name.substr(0, in.name.rfind(".in"));
      if (is_new) groups.push_back({.name = name, .layer = node.layer});
      groups[found->second].sites.push_back(weight.name);
    }
    if (inputs && in.name.ends_with("mlp.down_proj.in") && bitwidth(in.qparams.dtype) == 8) {
      groups.push_back({.name = in.name, .layer = node.layer, .sites = {in.name}, .wide_bits = 16});
    }
  }
  const int64_t narrow = data_bytes(graph);
  for (WidthGroup& group : groups) {
    group.bytes = data_bytes(widened(graph, recipe, group)) - narrow;
  }
  return groups;
}

void measure_divergences(std::vector<WidthGroup>& groups, const FloatModel& model,
                         const Recipe& recipe, const Graph& graph,
                         const std::vector<Window>& windows, const WindowProgress& progress,
                         const Workers& workers) {
  Graph ranged = graph;
  if (std::any_of(groups.begin(), groups.end(), is_input)) {
    assign_ranges(ranged, calibrate(model, graph, windows, {}));
  }
  DivergenceProbe probe(model, graph, windows);
  torch::Tensor all = torch::zeros({static_cast<int64_t>(groups.size())}, torch::kFloat64);
  for (size_t i = 0; i < groups.size(); ++i) {
    if (!workers.mine(static_cast<int64_t>(i))) continue;
    all[static_cast<int64_t>(i)] = is_input(groups[i])
                                       ? input_divergence(probe, recipe, ranged, groups[i])
                                       : weight_divergence(probe, model, graph, groups[i]);
    if (progress) progress(static_cast<int>(i) + 1, static_cast<int>(groups.size()));
  }
  workers.sum(all);
  for (size_t i = 0; i < groups.size(); ++i) {
    groups[i].divergence = all[static_cast<int64_t>(i)].item<double>();
  }
}

void choose_groups(std::vector<WidthGroup>& groups, int64_t bytes, int inputs) {
  std::vector<size_t> order = by_worth(groups);
  Filled best = fill(groups, order, bytes, inputs);
  if (best.left_out < groups.size()) {
    const auto outside = std::find(order.begin(), order.end(), best.left_out);
    std::rotate(order.begin(), outside, outside + 1);
    Filled other = fill(groups, order, bytes, inputs);
    if (other.divergence > best.divergence) best = std::move(other);
  }
  for (WidthGroup& group : groups) group.wide = false;
  for (const size_t i : best.taken) groups[i].wide = true;
}

WidthChoice choose_widths(const FloatModel& model, Recipe& recipe, Graph& graph,
                          const std::vector<Window>& windows, int positions,
                          const WindowProgress& progress, const Workers& workers) {
  const Budget budget = parse_budget(recipe.budget);
  WidthChoice choice{width_groups(recipe, graph), smallest_bytes(recipe, graph, positions)};
  measure_divergences(choice.groups, model, recipe, graph, windows, progress, workers);
  const int64_t limit = budget.bytes != 0 ? budget.bytes : std::numeric_limits<int64_t>::max();
  const int inputs = spare_inputs(recipe, graph);
  // The file's header and gaps may grow a little too: then again with less.
  for (int64_t spare = limit - choice.smallest_bytes;; spare -= choice.bytes - limit) {
    choose_groups(choice.groups, spare, inputs);
    Recipe chosen = recipe;
    for (const WidthGroup& group : choice.groups) {
      if (group.wide) widen(chosen, group);
    }
    Graph wide = build_graph(graph.config, chosen);
    wide.prefix_tokens = graph.prefix_tokens;
    choice.bytes = tensor_file_bytes(wide, positions);
    if (choice.bytes > limit) continue;
    recipe = std::move(chosen);
    graph = std::move(wide);
    return choice;
  }
}

nlohmann::json to_json(const WidthChoice& choice) {
  nlohmann::json groups = nlohmann::json::array();
  for (const WidthGroup& group : choice.groups) {
    groups.push_back({{"name", group.name},
                      {"bits", group.wide ? group.wide_bits : group.wide_bits / 2},
                      {"divergence", group.divergence},
                      {"bytes", group.bytes}});
  }
  return {{"smallest_bytes", choice.smallest_bytes}, {"bytes", choice.bytes}, {"groups", groups}};
}

}  // namespace qnpu
