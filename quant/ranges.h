// From what was observed to QParams, for every activation site of a graph. Formulas: symmetric
// scale = max|x| / qmax with zero point 0; asymmetric scale = (max - min) / (2^b - 1) with the zero
// point that maps min to qmin (an interval always holds zero, so that zero is exact).
#pragma once

#include <vector>

#include "model/graph.h"
#include "quant/observer.h"

namespace qnpu {

// Values of a site that its integers shall cover.
struct Interval {
  double low = 0.0;
  double high = 0.0;
};

// kAuto resolved: rotated and at most 4 bits -> mean3sigma, else minmax (method.md 1.6).
Observer resolve_observer(const QuantSpec& spec, bool rotated);

// The interval that an observer chooses, [low, high] with low <= 0 <= high.
//   minmax      extremes
//   percentile  quantiles 1 - p and p (p = spec.percentile / 100)
//   mean3sigma  mean -+ 3 sigma; symmetric scales divide it by 2^(b-1) rather than qmax (LSQ+)
//   mse         least mean squared error over a grid of clips, ends searched one after the other
//               where they are independent (asymmetric)
Interval choose_interval(const SiteStatistics& stats, const QuantSpec& spec, bool rotated,
                         DType dtype);

// Scale and zero point for an activation. A site that was always zero gets a tiny scale.
QParams qparams_of(Interval interval, bool symmetric, DType dtype);
QParams choose_qparams(const SiteStatistics& stats, const QuantSpec& spec, bool rotated,
                       DType dtype);

// By site index: for each site that owns a scale, its statistics and those of all sites tied to it.
std::vector<SiteStatistics> merge_tied(const Graph& graph,
                                       const std::vector<SiteStatistics>& stats);

// Is a site quantized by what was observed, so that calibration has to see it?
bool needs_statistics(const Site& site);

// Fills the qparams of all activation, scores and cache sites: observed roots from the statistics
// of all sites tied to them together, fixed ones, masks, and then the tied ones. `stats` by site
// index. Error naming the site if one that is needed has no statistics, or saw NaN or infinity.
void assign_ranges(Graph& graph, const std::vector<SiteStatistics>& stats);

// Writes a root's scale into all sites tied to it (again, after the root was changed).
void apply_ties(Graph& graph);

}  // namespace qnpu
