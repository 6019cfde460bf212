// What was seen of one site, in one pass: count, extremes, sums, and a histogram fine enough to
// choose a clip from. Needs no range in advance and no second pass.
//
// The histogram's bins are logarithmic: a sign, an exponent and the first six bits of the mantissa,
// read from the float itself. So a bin is 1.6 % wide wherever the values lie (a site with one value
// of 3000 among values of 0.1 keeps its detail), nothing is ever rescaled, counts are sums of
// integers, and the result does not depend on the order of the values or on any libm.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <vector>

#include "base/qparams.h"

namespace qnpu {

class SiteStatistics {
 public:
  static constexpr int kMantissaBits = 6;
  static constexpr int kMinExponent = -24;  // smaller magnitudes share the first bin with zero
  static constexpr int kMaxExponent = 24;   // larger ones share the last
  static constexpr int kBins = (kMaxExponent - kMinExponent) << kMantissaBits;  // of each sign

  // Every value counts for extremes and sums; every `histogram_stride`-th for the histogram.
  void add(const float* values, int64_t count, int histogram_stride = 1);
  void merge(const SiteStatistics& other);

  // Everything that is in it, in 64-bit words, and back: to send it to another process.
  std::vector<int64_t> words() const;
  static SiteStatistics from_words(const int64_t* words);
  static constexpr int kWords = 6 + 2 * kBins;

  bool empty() const { return count_ == 0; }
  bool finite() const;  // no NaN and no infinity was seen
  int64_t count() const { return count_; }
  double min() const { return min_; }
  double max() const { return max_; }
  double mean() const;
  double mean_square() const;
  double sigma() const;  // of the population

  // The value below which a share q in [0, 1] of the histogram lies, uniform within a bin.
  double quantile(double q) const;

  // Mean squared error of scale * (clamp(round(x / scale) + zero_point) - zero_point) against x,
  // the values taken as uniformly spread within each bin (then the integral is a closed form).
  double mean_squared_error(double scale, int zero_point, IntegerRange range) const;

  // Mean of |y - x| / (|x| + 1e-8) over the histogram, y the value rounded as above: in effect the
  // share of values that round to zero.
  double mean_relative_error(double scale, int zero_point, IntegerRange range) const;

  // The histogram over `count` bins of one width from min() to max(): what falls into each, the
  // values of a logarithmic bin taken as uniformly spread. Sums to the histogram's count.
  std::vector<int64_t> uniform_bins(int count) const;

  // Bounds of a bin's magnitudes; bin 0 starts at 0.
  static double bin_low(int bin);
  static double bin_high(int bin) { return bin_low(bin + 1); }

 private:
  double count_below(double x) const;  // of the histogram

  int64_t count_ = 0;
  float min_ = std::numeric_limits<float>::infinity();
  float max_ = -std::numeric_limits<float>::infinity();
  double sum_ = 0.0;
  double sum_of_squares_ = 0.0;
  int64_t histogram_count_ = 0;
  std::vector<int64_t> histogram_;  // [2 * kBins]: magnitudes of positive, then of negative values
};

// 10 log10(signal / noise); 200 if there is no noise, 0 if there is no signal.
double power_ratio_db(double mean_square, double mean_squared_error);

}  // namespace qnpu
