#include "apps/qnpu/site_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/status.h"

namespace qnpu {
namespace {

using nlohmann::json;

// A table has the range of its values, all of which are known: no observer chooses, and no rule.
bool is_whole_table(const Site& site) {
  return site.role == Role::kTable && site.source == RangeSource::kObserved;
}

std::string range_source(const Graph& graph, const Site& site) {
  if (is_whole_table(site)) return observer_name(Observer::kMinMax);
  switch (site.source) {
    case RangeSource::kObserved:
      return observer_name(site.spec.observer);
    case RangeSource::kTied:
      return fmt::format("tied to {}", graph.site(site.tied_to).name);
    case RangeSource::kFixed:
      return "fixed";
    case RangeSource::kMask:
      return "mask";
  }
  return "?";
}

// Report entries of activations ("sites") and of weights and tables ("weights") by site name.
std::map<std::string, double> measured_sqnr(const json& report) {
  std::map<std::string, double> sqnr;
  for (const char* part : {"sites", "weights"}) {
    if (!report.is_object() || !report.contains(part)) continue;
    for (const json& entry : report.at(part)) {
      const bool named = entry.contains("name") && entry.at("name").is_string();
      if (named && entry.contains("sqnr") && entry.at("sqnr").is_number()) {
        sqnr[entry.at("name").get<std::string>()] = entry.at("sqnr").get<double>();
      }
    }
  }
  return sqnr;
}

void fill_numbers(SiteRow& row) {
  const QParams& q = row.site->qparams;
  if (q.scale.empty()) return;
  row.scale = *std::max_element(q.scale.begin(), q.scale.end());
  row.zero_point = q.zero_point.empty() ? 0 : q.zero_point[0];
  IntegerRange range = integer_range(q.dtype);
  if (row.site->spec.block_size != 0) range.qmax = 7 * 16;  // of 4 bits times a multiplier
  if (row.site->role == Role::kWeight && row.site->spec.narrow_range) range.qmin = -range.qmax;
  row.low = *row.scale * (range.qmin - row.zero_point);
  row.high = *row.scale * (range.qmax - row.zero_point);
}

std::string number_text(const std::optional<double>& value) {
  return value ? fmt::format("{:.4g}", *value) : "";
}

std::string blocks_text(const Site& site) {
  if (site.spec.block_size == 0) return "";
  return fmt::format(", {} bits, blocks of {}", site.spec.bitwidth, site.spec.block_size);
}

}  // namespace

void fill_weight_scales(const TensorFile& tensors, Graph& graph) {
  for (Site& site : graph.sites) {
    const std::string name = site.name + ".scale";
    if (site.role != Role::kWeight || !tensors.contains(name)) continue;
    const std::span<const float> scale = tensors.at(name).as<float>();
    site.qparams.scale.assign(scale.begin(), scale.end());
  }
}

std::vector<SiteRow> site_rows(const Graph& graph, const Recipe& recipe, const json& report,
                               const std::string& pattern) {
  const std::map<std::string, double> sqnr = measured_sqnr(report);
  std::vector<SiteRow> rows;
  for (const Site& site : graph.sites) {
    if (!glob_match(pattern, site.name)) continue;
    SiteRow row;
    row.site = &site;
    row.range_from = range_source(graph, site);
    const bool by_rule = site.rule >= 0 && site.rule < recipe.rules.size() && !is_whole_table(site);
    if (by_rule) row.rule = recipe.rules[site.rule].match;
    fill_numbers(row);
    if (const auto found = sqnr.find(site.name); found != sqnr.end()) row.sqnr = found->second;
    rows.push_back(std::move(row));
  }
  return rows;
}

void print_site_rows(const std::vector<SiteRow>& rows) {
  size_t width = 4;
  for (const SiteRow& row : rows) width = std::max(width, row.site->name.size());
  fmt::print("{:<{}}  {:<10} {:<5} {:>10} {:>6} {:>10} {:>10} {:>7}  {:<24} {}\n", "site", width,
             "role", "dtype", "scale", "zero", "low", "high", "sqnr", "decided by", "range from");
  for (const SiteRow& row : rows) {
    const bool chosen = row.scale.has_value();
    fmt::print("{:<{}}  {:<10} {:<5} {:>10} {:>6} {:>10} {:>10} {:>7}  {:<24} {}\n", row.site->name,
               width, role_name(row.site->role), dtype_name(row.site->qparams.dtype),
               number_text(row.scale), chosen ? fmt::format("{}", row.zero_point) : "",
               chosen ? fmt::format("{:.4g}", row.low) : "",
               chosen ? fmt::format("{:.4g}", row.high) : "",
               row.sqnr ? fmt::format("{:.1f}", *row.sqnr) : "",
               row.rule.empty() ? "default" : row.rule, row.range_from + blocks_text(*row.site));
  }
}

json to_json(const std::vector<SiteRow>& rows) {
  json list = json::array();
  for (const SiteRow& row : rows) {
    json entry = {{"name", row.site->name},
                  {"role", role_name(row.site->role)},
                  {"dtype", dtype_name(row.site->qparams.dtype)},
                  {"bits", row.site->spec.bitwidth},
                  {"range_from", row.range_from},
                  {"rule", row.rule.empty() ? json("default") : json(row.rule)}};
    if (row.scale) {
      entry.update({{"scale", *row.scale},
                    {"zero_point", row.zero_point},
                    {"low", row.low},
                    {"high", row.high}});
    }
    if (row.site->spec.block_size != 0) entry["block_size"] = row.site->spec.block_size;
    if (row.sqnr) entry["sqnr"] = *row.sqnr;
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace qnpu
