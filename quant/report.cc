#include "quant/report.h"

#include <cmath>
#include <set>

#include "quant/ranges.h"

namespace qnpu {
namespace {

constexpr int kHistogramBins = 64;

nlohmann::json histogram(const SiteStatistics& seen) {
  return {{"low", seen.min()}, {"high", seen.max()}, {"counts", seen.uniform_bins(kHistogramBins)}};
}

// Of the same range; a tied scale is 256 times finer at 16 bits, 16 times coarser at 4.
double error_at_8_bits(const SiteStatistics& seen, const QParams& qparams) {
  const double scale = std::ldexp(qparams.scale[0], bitwidth(qparams.dtype) - 8);
  return seen.mean_relative_error(scale, 0, integer_range(DType::kS8));
}

}  // namespace

nlohmann::json to_json(const Findings& findings, const Recipe& recipe) {
  nlohmann::json report = {{"recipe", recipe.name}};
  if (recipe.prefix) {
    report["prefix"] = {{"tokens", findings.prefix.prefix.tokens},
                        {"outlier_bits", findings.prefix.bits}};
  }
  if (recipe.flatten) report["flatten"] = {{"fourth_powers", findings.fourth_powers}};
  for (const auto& [name, rounding] : findings.rounding) {
    report["rounding"].push_back(
        {{"name", name}, {"gptq_error", rounding.gptq_error}, {"error", rounding.error}});
  }
  if (recipe.sensitivity) {
    report["sensitivity"] = {{"ratios", findings.sensitivity.ratio},
                             {"layers", findings.sensitivity.chosen}};
  }
  if (!recipe.budget.empty()) report["widths"] = to_json(findings.widths);
  for (const auto& [section, learned] : findings.learned) report[section] = learned;
  return report;
}

nlohmann::json site_report(const Graph& graph, const std::vector<SiteStatistics>& stats) {
  const std::vector<SiteStatistics> merged = merge_tied(graph, stats);
  nlohmann::json sites = nlohmann::json::array();
  for (size_t i = 0; i < graph.sites.size(); ++i) {
    const Site& site = graph.sites[i];
    if (site.role == Role::kWeight || site.qparams.scale.empty()) continue;
    nlohmann::json entry = {{"name", site.name},
                            {"dtype", dtype_name(site.qparams.dtype)},
                            {"scale", site.qparams.scale[0]},
                            {"zero_point", site.qparams.zero_point[0]}};
    const auto root = static_cast<size_t>(tie_root(graph, static_cast<int>(i)).site);
    const SiteStatistics& seen = merged[root];
    if (!seen.empty()) {
      const double noise = seen.mean_squared_error(
          site.qparams.scale[0], site.qparams.zero_point[0], integer_range(site.qparams.dtype));
      entry.update({{"min", seen.min()},
                    {"max", seen.max()},
                    {"mean", seen.mean()},
                    {"sigma", seen.sigma()},
                    {"sqnr", power_ratio_db(seen.mean_square(), noise)}});
    }
    sites.push_back(std::move(entry));
  }
  return sites;
}

nlohmann::json histogram_report(const Graph& graph, const std::vector<SiteStatistics>& stats,
                                const std::map<int, SiteStatistics>& unrotated) {
  const std::vector<SiteStatistics> merged = merge_tied(graph, stats);
  nlohmann::json list = nlohmann::json::array();
  std::set<int> done;
  for (const Node& node : graph.nodes) {
    if (node.op != Op::kLinear || !done.insert(node.in[0]).second) continue;
    const Site& site = graph.site(node.in[0]);
    const SiteStatistics& seen = merged[static_cast<size_t>(tie_root(graph, node.in[0]).site)];
    if (seen.empty() || site.qparams.scale.empty()) continue;
    nlohmann::json entry = histogram(seen);
    entry["name"] = site.name;
    entry["relative_error"] = error_at_8_bits(seen, site.qparams);
    const auto before = unrotated.find(node.in[0]);
    if (before != unrotated.end()) entry["before"] = histogram(before->second);
    list.push_back(std::move(entry));
  }
  return list;
}

nlohmann::json weight_report(const WeightReports& weights) {
  nlohmann::json list = nlohmann::json::array();
  for (const auto& [name, report] : weights) {
    nlohmann::json entry = {{"name", name}, {"bits", report.bits}, {"sqnr", report.sqnr}};
    if (report.block_size != 0) entry["block_size"] = report.block_size;
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace qnpu
