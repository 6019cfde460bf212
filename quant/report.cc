#include "quant/report.h"

#include "quant/ranges.h"

namespace qnpu {

nlohmann::json to_json(const Findings& findings, const Recipe& recipe) {
  nlohmann::json report = {{"recipe", recipe.name}};
  if (recipe.prefix) {
    report["prefix"] = {{"tokens", findings.prefix.prefix.tokens},
                        {"outlier_bits", findings.prefix.bits}};
  }
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
