// The sites of a graph as rows to show: what each one is, which rule decided it, and what was
// chosen and measured, if it was.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "model/graph.h"

namespace qnpu {

struct SiteRow {
  const Site* site = nullptr;
  std::string range_from;       // an observer's name, "tied to ...", "fixed" or "mask"
  std::string rule;             // the deciding rule's glob; empty: the default
  std::optional<double> scale;  // per channel: the largest
  int zero_point = 0;
  double low = 0, high = 0;    // what the integers cover, with that scale
  std::optional<double> sqnr;  // dB, from report.json
};

// A weight's scales, one per channel, are a tensor of the artifact.
void fill_weight_scales(const TensorFile& tensors, Graph& graph);

// Sites whose names match `pattern`. `report` is report.json, or null where there is none.
std::vector<SiteRow> site_rows(const Graph& graph, const Recipe& recipe,
                               const nlohmann::json& report, const std::string& pattern);

void print_site_rows(const std::vector<SiteRow>& rows);
nlohmann::json to_json(const std::vector<SiteRow>& rows);

}  // namespace qnpu
