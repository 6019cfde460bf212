// report.json of an artifact: what was measured while quantizing. It holds no times and no paths,
// so that the same inputs give the same file.
//
//   {"recipe", "seed", "calibration": {"source": "file" | "sampled" | "both", "windows", "length"},
//    "model": name of the checkpoint's folder,
//    "sites":   [{"name", "dtype", "scale", "zero_point", "min", "max", "mean", "sigma", "sqnr"}],
//    "weights": [{"name", "bits", "block_size" (if there are blocks), "sqnr"}],
//    "prefix": {"tokens", "outlier_bits": before, and after each token},
//    "flatten": {"fourth_powers": the weights' that R1 turns, before and after}  (flatten.h),
//    "rounding": [{"name", "gptq_error", "error": after scales and integers were improved}],
//    "histograms": [{"name", "low", "high", "counts", "relative_error",
//                    "before": {"low", "high", "counts"} (if it was rotated)}],
//    "fidelity": {"tokens", "kl_divergence", ..., "sites"}  (fidelity.h),
//    "learn", "tune": {"losses", "rates", "movement": by kind (Parameters::movement), "held_out":
//                      [...], "accepted", "largest_drift"},
//    "sensitivity": {"ratios": by layer, "layers": those that got 16 bits} (if the recipe has it),
//    "widths": {"smallest_bytes", "bytes", "groups": [{"name", "bits", "divergence", "bytes"}]}
//              (if the recipe has a budget; choose_widths.h)}
//
// A site's min, max, mean and sigma are those of all sites tied to it; `sqnr` (dB) is that of
// rounding the observed values to the site's own grid, the noise of earlier sites not counted.
//
// Histograms are those of the linears' inputs, in 64 bins of one width from low to high, and before
// they were rotated (unrotated.h). `relative_error` is the mean of |y - x| / |x| of rounding to 8
// bits, whatever the site's width: which inputs would gain from 16.
#pragma once

#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/graph.h"
#include "model/recipe.h"
#include "quant/choose_widths.h"
#include "quant/freeze.h"
#include "quant/layerwise.h"
#include "quant/observer.h"
#include "quant/prefix.h"
#include "quant/sensitivity.h"

namespace qnpu {

// What the steps found out, each if the recipe has it.
struct Findings {
  PrefixSearch prefix;
  std::array<double, 2> fourth_powers{};
  RoundingReports rounding;
  Sensitivity sensitivity;
  WidthChoice widths;
  std::map<std::string, nlohmann::json> learned;  // by section
};

nlohmann::json to_json(const Findings& findings, const Recipe& recipe);  // and the recipe's name
nlohmann::json site_report(const Graph& graph, const std::vector<SiteStatistics>& stats);
nlohmann::json histogram_report(const Graph& graph, const std::vector<SiteStatistics>& stats,
                                const std::map<int, SiteStatistics>& unrotated);
nlohmann::json weight_report(const WeightReports& weights);

}  // namespace qnpu
