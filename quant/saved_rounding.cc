#include "quant/saved_rounding.h"

#include <nlohmann/json.hpp>

#include "quant/learn/state.h"

namespace qnpu {
namespace {

using torch::Tensor;

std::vector<int> rounded_sites(const Graph& graph) {
  std::vector<int> sites;
  for (const Node& node : graph.nodes) {
    if (rounded_layerwise(graph, node)) sites.push_back(node.weight);
  }
  return sites;
}

struct Entry {
  Tensor weight, scale, errors;
};

// Per site its weight, its scale [N], and its two errors.
std::vector<std::pair<std::string, Tensor>> named(const Graph& graph,
                                                  const std::vector<Entry>& entries) {
  std::vector<std::pair<std::string, Tensor>> all;
  const std::vector<int> sites = rounded_sites(graph);
  for (size_t i = 0; i < sites.size(); ++i) {
    const std::string& name = graph.site(sites[i]).name;
    all.emplace_back(name, entries[i].weight);
    all.emplace_back(name + ".scale", entries[i].scale);
    all.emplace_back(name + ".errors", entries[i].errors);
  }
  return all;
}

}  // namespace

std::string rounding_fingerprint(const FloatModel& model, const Graph& graph,
                                 const std::vector<Window>& windows, const GptqSpec& spec) {
  Recipe recipe;
  recipe.gptq = spec;
  return run_fingerprint({{"spec", to_json(recipe)["gptq"]}}, model, graph, windows);
}

void save_rounding(const std::filesystem::path& path, const std::string& fingerprint,
                   const FloatModel& model, const Graph& graph, const RoundingReports& reports) {
  std::vector<Entry> entries;
  for (const int index : rounded_sites(graph)) {
    const Site& site = graph.site(index);
    const RoundingReport& report = reports.at(site.name);
    entries.push_back({model.weights.at(site.name), torch::tensor(site.qparams.scale),
                       torch::tensor({report.gptq_error, report.error}, torch::kFloat64)});
  }
  save_state(path, fingerprint, {0, {}, {}, named(graph, entries)});
}

bool load_rounding(const std::filesystem::path& path, const std::string& fingerprint,
                   FloatModel& model, Graph& graph, RoundingReports& reports) {
  std::vector<Entry> entries;
  const std::vector<int> sites = rounded_sites(graph);
  for (const int index : sites) {
    const Site& site = graph.site(index);
    entries.push_back({torch::empty({site.rows, site.cols}), torch::empty({site.rows}),
                       torch::empty({2}, torch::kFloat64)});
  }
  LearnState state{0, {}, {}, named(graph, entries)};
  if (!load_state(path, fingerprint, state)) return false;
  for (size_t i = 0; i < sites.size(); ++i) {
    Site& site = graph.sites[static_cast<size_t>(sites[i])];
    const float* scale = entries[i].scale.data_ptr<float>();
    const double* errors = entries[i].errors.data_ptr<double>();
    site.qparams.scale.assign(scale, scale + site.rows);
    torch::Tensor& weight = model.weights.at(site.name);
    weight = entries[i].weight.to(weight.device());
    reports[site.name] = {errors[0], errors[1]};
  }
  return true;
}

}  // namespace qnpu
