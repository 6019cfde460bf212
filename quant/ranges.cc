#include "quant/ranges.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "base/status.h"

namespace qnpu {
namespace {

// The smallest scale of a tensor, so that a site that is always zero divides by something.
double smallest_scale(DType dtype) { return bitwidth(dtype) <= 8 ? 1e-4 / 255 : 1e-4 / 65535; }

// The argument in {1, r, r^2, ...} with the least cost, refined between its neighbours. The first
// of equal costs wins, so that the widest interval is kept where it does not matter.
double best_factor(const std::function<double(double)>& cost) {
  constexpr double kRatio = 0.978572062087700;  // 2^(-1/32)
  double best = 1.0;
  double best_cost = cost(1.0);
  const auto consider = [&](double factor) {
    const double c = cost(factor);
    if (c < best_cost) {
      best_cost = c;
      best = factor;
    }
  };
  double factor = 1.0;
  for (int i = 0; i < 10 * 32; ++i) consider(factor *= kRatio);
  const double center = best;
  for (int i = -7; i <= 7; ++i) consider(std::min(1.0, center * (1.0 + i * (1.0 - kRatio) / 8)));
  return best;
}

double interval_cost(const SiteStatistics& stats, Interval interval, bool symmetric, DType dtype) {
  const QParams q = qparams_of(interval, symmetric, dtype);
  return stats.mean_squared_error(q.scale[0], q.zero_point[0], integer_range(dtype));
}

Interval mse_interval(const SiteStatistics& stats, Interval full, bool symmetric, DType dtype) {
  const auto scaled = [&](double low, double high) {
    return Interval{full.low * low, full.high * high};
  };
  const auto cost = [&](double low, double high) {
    return interval_cost(stats, scaled(low, high), symmetric, dtype);
  };
  const double both = best_factor([&](double f) { return cost(f, f); });
  if (symmetric) return scaled(both, both);
  // Each end by itself, starting from the longer one; kept only if better than both together.
  const bool high_first = full.high >= -full.low;
  double low = 1.0;
  double high = 1.0;
  for (int turn = 0; turn < 4; ++turn) {
    if ((turn % 2 == 0) == high_first) {
      high = best_factor([&](double f) { return cost(low, f); });
    } else {
      low = best_factor([&](double f) { return cost(f, high); });
    }
  }
  return cost(low, high) <= cost(both, both) ? scaled(low, high) : scaled(both, both);
}

Interval with_zero(double low, double high) { return {std::min(low, 0.0), std::max(high, 0.0)}; }

void check_observed(const Site& site, const SiteStatistics& stats) {
  if (stats.empty()) {
    fail("site '{}' has no statistics: the calibration must run through every node of the graph",
         site.name);
  }
  if (!stats.finite()) {
    fail("site '{}' holds NaN or infinity during calibration: check the checkpoint's weights",
         site.name);
  }
}

// The site whose range a mask widens: the input of the node that writes the mask.
int mask_input(const Graph& graph, int site) {
  for (const Node& node : graph.nodes) {
    if (node.out == site) return node.in[0];
  }
  fail("site '{}' has a mask's range, but no node writes it", graph.site(site).name);
}

double fixed_scale(const Site& site) {
  return site.qparams.dtype == DType::kU16 ? 1.0 / 65535 : 1.0 / 32767;
}

}  // namespace

Observer resolve_observer(const QuantSpec& spec, bool rotated) {
  if (spec.observer != Observer::kAuto) return spec.observer;
  return rotated && spec.bitwidth <= 4 ? Observer::kMean3Sigma : Observer::kMinMax;
}

Interval choose_interval(const SiteStatistics& stats, const QuantSpec& spec, bool rotated,
                         DType dtype) {
  const Interval full = with_zero(stats.min(), stats.max());
  switch (resolve_observer(spec, rotated)) {
    case Observer::kPercentile: {
      const double p = spec.percentile / 100.0;
      return with_zero(stats.quantile(1.0 - p), stats.quantile(p));
    }
    case Observer::kMean3Sigma: {
      const double low = stats.mean() - 3.0 * stats.sigma();
      const double high = stats.mean() + 3.0 * stats.sigma();
      if (!spec.symmetric) return with_zero(std::max(low, full.low), std::min(high, full.high));
      // qparams_of divides by qmax; the formula's divisor is 2^(b-1) = qmax + 1.
      const double qmax = integer_range(dtype).qmax;
      return with_zero(low * qmax / (qmax + 1), high * qmax / (qmax + 1));
    }
    case Observer::kMse:
      return mse_interval(stats, full, spec.symmetric, dtype);
    case Observer::kAuto:
    case Observer::kMinMax:
      break;
  }
  return full;
}

QParams qparams_of(Interval interval, bool symmetric, DType dtype) {
  const auto [qmin, qmax] = integer_range(dtype);
  const double widest = std::max(-interval.low, interval.high);
  const double wanted =
      symmetric ? widest / qmax : (interval.high - interval.low) / (double{1.0} * qmax - qmin);
  const auto scale = static_cast<float>(std::max(wanted, smallest_scale(dtype)));
  int zero_point = 0;
  if (!symmetric) {
    const double exact = qmin - interval.low / static_cast<double>(scale);
    zero_point = std::clamp(static_cast<int>(std::floor(exact + 0.5)), qmin, qmax);
  }
  return {dtype, {scale}, {zero_point}, -1, 0};
}

QParams choose_qparams(const SiteStatistics& stats, const QuantSpec& spec, bool rotated,
                       DType dtype) {
  return qparams_of(choose_interval(stats, spec, rotated, dtype), spec.symmetric, dtype);
}

std::vector<SiteStatistics> merge_tied(const Graph& graph,
                                       const std::vector<SiteStatistics>& stats) {
  std::vector<SiteStatistics> merged(graph.sites.size());
  for (size_t i = 0; i < graph.sites.size(); ++i) {
    if (i >= stats.size() || stats[i].empty()) continue;
    const int root = graph.sites[i].source == RangeSource::kTied
                         ? tie_root(graph, static_cast<int>(i)).site
                         : static_cast<int>(i);
    merged[static_cast<size_t>(root)].merge(stats[i]);
  }
  return merged;
}

bool needs_statistics(const Site& site) {
  return site.role != Role::kWeight && site.role != Role::kTable &&
         site.source == RangeSource::kObserved;
}

void assign_ranges(Graph& graph, const std::vector<SiteStatistics>& stats) {
  const std::vector<SiteStatistics> merged = merge_tied(graph, stats);
  for (size_t i = 0; i < graph.sites.size(); ++i) {
    Site& site = graph.sites[i];
    const DType dtype = site.qparams.dtype;
    if (needs_statistics(site)) {
      check_observed(site, merged[i]);
      site.qparams = choose_qparams(merged[i], site.spec, site.rotated, dtype);
    } else if (site.source == RangeSource::kFixed) {
      site.qparams = {dtype, {static_cast<float>(fixed_scale(site))}, {0}, -1, 0};
    } else if (site.source == RangeSource::kMask) {
      const auto input = static_cast<size_t>(mask_input(graph, static_cast<int>(i)));
      check_observed(graph.sites[input], merged[input]);
      site.qparams = qparams_of(with_zero(merged[input].min() - 20.0, merged[input].max()),
                                /*symmetric=*/false, dtype);
    }
  }
  apply_ties(graph);
}

void apply_ties(Graph& graph) {
  for (size_t i = 0; i < graph.sites.size(); ++i) {
    Site& site = graph.sites[i];
    if (site.source != RangeSource::kTied) continue;
    const TieRoot root = tie_root(graph, static_cast<int>(i));
    const QParams& from = graph.site(root.site).qparams;
    if (from.scale.empty()) continue;  // a table's, which freeze chooses
    // Ratios are powers of two (1, 256, 1/4096, ...), so the float32 scales keep them exactly.
    site.qparams.scale = {static_cast<float>(from.scale[0] * root.ratio)};
    site.qparams.zero_point = root.ratio == 1.0 ? from.zero_point : std::vector<int32_t>{0};
  }
}

}  // namespace qnpu
