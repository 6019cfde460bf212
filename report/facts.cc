// What the page draws of one artifact, as JSON: report.json and `qnpu inspect --json` rearranged by
// what a reader asks, and what can be counted in the graph.
#include <fmt/format.h>

#include <algorithm>

#include "base/status.h"
#include "report/operations.h"
#include "report/report.h"

namespace qnpu {
namespace {

using nlohmann::json;

json or_null(const json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() ? json(nullptr) : *found;
}

// {name: entry without its name}. No checksum covers report.json: what has no name is left out.
json by_name(const json& list) {
  json result = json::object();
  for (json entry : list.is_array() ? list : json::array()) {
    if (!entry.is_object() || !entry.contains("name") || !entry.at("name").is_string()) continue;
    const std::string name = entry.at("name");
    entry.erase("name");
    result[name] = std::move(entry);
  }
  return result;
}

// Sites as listed by inspect, with the extremes that calibration saw.
json sites_of(const ReportInput& input) {
  const json seen = by_name(or_null(input.measured, "sites"));
  json sites = or_null(input.inspected, "sites");
  for (json& site : sites) {
    const auto found = seen.find(site.value("name", ""));
    if (found == seen.end()) continue;
    for (const char* key : {"min", "max"}) {
      if (found->contains(key)) site[key] = found->at(key);
    }
  }
  return sites;
}

// What a ranking by need of more bits can be made of; the page says which it shows.
json sensitivity_of(const json& measured) {
  return {{"layers", or_null(measured, "sensitivity")}, {"widths", or_null(measured, "widths")}};
}

json learning_of(const json& measured, const json& recipe) {
  json sections = json::array();
  for (const char* section : {"learn", "tune"}) {
    json learned = or_null(measured, section);
    if (!learned.is_object()) continue;
    learned["section"] = section;
    learned["spec"] = or_null(recipe, section);
    sections.push_back(std::move(learned));
  }
  return sections;
}

json operations_of(const Artifact& artifact) {
  json list = json::array();
  for (const int context : {128, 1024, 4096}) {
    if (context > artifact.positions) continue;
    json counts = json::array();
    for (const OperationCount& count : count_operations(artifact.graph, context)) {
      counts.push_back({{"kind", count.kind},
                        {"left", count.left},
                        {"right", count.right},
                        {"number", count.number}});
    }
    list.push_back({{"context", context}, {"counts", counts}});
  }
  return list;
}

json memory_of(const Artifact& artifact) {
  json list = json::array();
  for (const TensorSpec& tensor : required_tensors(artifact.graph, artifact.positions)) {
    const TensorView& view = artifact.tensors.at(tensor.name);
    list.push_back({{"name", tensor.name},
                    {"dtype", tensor.dtype},
                    {"shape", tensor.shape},
                    {"bytes", view.bytes}});
  }
  return list;
}

// Of one position of the context, all layers.
int64_t cache_bytes(const Graph& graph) {
  int64_t sum = 0;
  for (const Site& site : graph.sites) {
    if (site.role != Role::kKCache && site.role != Role::kVCache) continue;
    sum += int64_t{site.cols} * bitwidth(site.qparams.dtype) / 8;
  }
  return sum;
}

json evaluations_of(const std::vector<NamedJson>& evaluations) {
  json list = json::array();
  for (const auto& [label, values] : evaluations) {
    list.push_back({{"label", label}, {"values", values}});
  }
  return list;
}

}  // namespace

json report_facts(const ReportInput& input) {
  const json& inspected = input.inspected;
  const json& measured = input.measured;
  const json recipe = or_null(inspected, "recipe");
  return {{"name", input.name},
          {"model", or_null(measured, "model")},
          {"recipe", recipe},
          {"config", or_null(inspected, "config")},
          {"size_bytes", or_null(inspected, "size_bytes")},
          {"positions", input.artifact->positions},
          {"prefix", or_null(inspected, "prefix")},
          {"prefix_search", or_null(measured, "prefix")},
          {"seed", or_null(measured, "seed")},
          {"calibration", or_null(measured, "calibration")},
          {"measured", measured.is_object()},
          {"fidelity", or_null(measured, "fidelity")},
          {"sites", sites_of(input)},
          {"histograms", by_name(or_null(measured, "histograms"))},
          {"rounding", by_name(or_null(measured, "rounding"))},
          {"sensitivity", sensitivity_of(measured)},
          {"learning", learning_of(measured, recipe)},
          {"operations", operations_of(*input.artifact)},
          {"memory", memory_of(*input.artifact)},
          {"cache_bytes", cache_bytes(input.artifact->graph)},
          {"evaluations", evaluations_of(input.evaluations)},
          {"bench", input.bench}};
}

void check_comparable(const ReportInput& first, const ReportInput& other) {
  const ModelConfig& a = first.artifact->graph.config;
  const ModelConfig& b = other.artifact->graph.config;
  const auto shape = [](const ModelConfig& c) {
    return fmt::format("{} layers of {}, {} heads of {}, {} tokens", c.num_layers, c.hidden_size,
                       c.num_heads, c.head_dim, c.vocab_size);
  };
  if (shape(a) == shape(b) && a.num_kv_heads == b.num_kv_heads) return;
  fail(
      "{} and {} are models of different shapes ({}; {}), so there is nothing to compare; give two "
      "artifacts of one model",
      first.artifact->folder.string(), other.artifact->folder.string(), shape(a), shape(b));
}

}  // namespace qnpu
