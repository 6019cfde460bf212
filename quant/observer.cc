#include "quant/observer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/vectorize.h"

namespace qnpu {
namespace {

constexpr int kShift = 23 - SiteStatistics::kMantissaBits;
constexpr int32_t kFirst = (127 + SiteStatistics::kMinExponent) << SiteStatistics::kMantissaBits;
constexpr int kLanes = 8;

// Index into the histogram: the float's own leading bits, clamped. Adding the sign's half last
// keeps the loop free of branches.
inline int32_t bin_index(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const int32_t magnitude = static_cast<int32_t>((bits & 0x7fffffffu) >> kShift) - kFirst;
  return std::clamp(magnitude, 0, SiteStatistics::kBins - 1) +
         static_cast<int32_t>(bits >> 31) * SiteStatistics::kBins;
}

using Floats = float __attribute__((vector_size(kLanes * sizeof(float))));
using Doubles = double __attribute__((vector_size(kLanes * sizeof(double))));

// Extremes and sums in kLanes independent chains: the result does not depend on the width of the
// CPU's vectors.
struct Lanes {
  Floats min = Floats{} + std::numeric_limits<float>::infinity();
  Floats max = Floats{} - std::numeric_limits<float>::infinity();
  Doubles sum{}, squares{};
};

// `count` is a multiple of kLanes.
QNPU_VECTORIZE void add_to(Lanes& to, const float* x, int64_t count) {
  Lanes lanes = to;
  for (int64_t i = 0; i < count; i += kLanes) {
    Floats v;
    std::memcpy(&v, x + i, sizeof v);
    const Doubles wide = __builtin_convertvector(v, Doubles);
    lanes.min = v < lanes.min ? v : lanes.min;
    lanes.max = v > lanes.max ? v : lanes.max;
    lanes.sum += wide;
    lanes.squares += wide * wide;
  }
  to = lanes;
}

// Integral of (t - round(t))^2 over [0, t]: 1/12 for each whole step, a cube for the rest.
double rounding_integral(double t) {
  const double n = std::floor(t + 0.5);
  const double f = t - n;
  return n / 12.0 + f * f * f / 3.0;
}

// The same for a grid that ends at `limit`: beyond it the error is the distance.
double clipped_integral(double t, double limit) {
  if (t <= limit) return rounding_integral(t);
  const double beyond = t - limit;
  return limit / 12.0 + beyond * beyond * beyond / 3.0;
}

}  // namespace

void SiteStatistics::add(const float* values, int64_t count, int histogram_stride) {
  if (histogram_.empty()) histogram_.assign(2 * kBins, 0);
  Lanes lanes;
  const int64_t whole = count - count % kLanes;
  add_to(lanes, values, whole);
  for (int lane = 0; lane < kLanes; ++lane) {
    const int64_t rest = whole + lane;
    const float last = rest < count ? values[rest] : 0.0f;
    min_ = std::min({min_, lanes.min[lane], rest < count ? last : min_});
    max_ = std::max({max_, lanes.max[lane], rest < count ? last : max_});
    sum_ += lanes.sum[lane] + double{last};
    sum_of_squares_ += lanes.squares[lane] + double{last} * double{last};
  }
  for (int64_t i = 0; i < count; i += histogram_stride) ++histogram_[bin_index(values[i])];
  count_ += count;
  histogram_count_ += (count + histogram_stride - 1) / histogram_stride;
}

void SiteStatistics::merge(const SiteStatistics& other) {
  if (other.empty()) return;
  if (histogram_.empty()) histogram_.assign(2 * kBins, 0);
  for (size_t i = 0; i < histogram_.size(); ++i) histogram_[i] += other.histogram_[i];
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
  sum_ += other.sum_;
  sum_of_squares_ += other.sum_of_squares_;
  count_ += other.count_;
  histogram_count_ += other.histogram_count_;
}

std::vector<int64_t> SiteStatistics::words() const {
  std::vector<int64_t> words = {count_,
                                histogram_count_,
                                std::bit_cast<int64_t>(static_cast<double>(min_)),
                                std::bit_cast<int64_t>(static_cast<double>(max_)),
                                std::bit_cast<int64_t>(sum_),
                                std::bit_cast<int64_t>(sum_of_squares_)};
  words.insert(words.end(), histogram_.begin(), histogram_.end());
  words.resize(kWords);
  return words;
}

SiteStatistics SiteStatistics::from_words(const int64_t* words) {
  SiteStatistics stats;
  stats.count_ = words[0];
  stats.histogram_count_ = words[1];
  stats.min_ = static_cast<float>(std::bit_cast<double>(words[2]));
  stats.max_ = static_cast<float>(std::bit_cast<double>(words[3]));
  stats.sum_ = std::bit_cast<double>(words[4]);
  stats.sum_of_squares_ = std::bit_cast<double>(words[5]);
  stats.histogram_.assign(words + 6, words + kWords);
  return stats;
}

bool SiteStatistics::finite() const { return std::isfinite(sum_of_squares_); }

double SiteStatistics::mean() const { return count_ == 0 ? 0.0 : sum_ / count_; }

double SiteStatistics::mean_square() const { return count_ == 0 ? 0.0 : sum_of_squares_ / count_; }

double SiteStatistics::sigma() const {
  return std::sqrt(std::max(0.0, mean_square() - mean() * mean()));
}

double SiteStatistics::bin_low(int bin) {
  if (bin == 0) return 0.0;
  return std::bit_cast<float>(static_cast<uint32_t>(bin + kFirst) << kShift);
}

double SiteStatistics::quantile(double q) const {
  const double target = q * static_cast<double>(histogram_count_);
  double below = 0.0;
  // From the most negative value up: negative bins backwards, then positive ones.
  for (int i = 0; i < 2 * kBins; ++i) {
    const bool negative = i < kBins;
    const int bin = negative ? kBins - 1 - i : i - kBins;
    const auto inside = static_cast<double>(histogram_[bin + (negative ? kBins : 0)]);
    if (inside > 0.0 && below + inside >= target) {
      const double share = std::max(0.0, (target - below) / inside);
      const double low = negative ? -bin_high(bin) : bin_low(bin);
      const double high = negative ? -bin_low(bin) : bin_high(bin);
      return std::clamp(low + share * (high - low), min(), max());
    }
    below += inside;
  }
  return max();
}

double SiteStatistics::mean_squared_error(double scale, int zero_point, IntegerRange range) const {
  if (histogram_count_ == 0) return 0.0;
  const double limits[2] = {static_cast<double>(range.qmax) - zero_point,
                            static_cast<double>(zero_point) - range.qmin};
  const double largest = std::max(-min(), max());
  double total = 0.0;
  for (int sign = 0; sign < 2; ++sign) {
    for (int bin = 0; bin < kBins; ++bin) {
      const int64_t inside = histogram_[bin + sign * kBins];
      if (inside == 0) continue;
      const double low = bin_low(bin);
      const double high = std::max(std::min(bin_high(bin), largest), low * (1.0 + 1e-9));
      if (high <= low) continue;  // only zeros were seen
      const double integral = clipped_integral(high / scale, limits[sign]) -
                              clipped_integral(low / scale, limits[sign]);
      total += static_cast<double>(inside) * integral * scale / (high - low);
    }
  }
  return std::max(0.0, total * scale * scale / static_cast<double>(histogram_count_));
}

double SiteStatistics::mean_relative_error(double scale, int zero_point, IntegerRange range) const {
  constexpr int kPoints = 16;  // of a bin, which is 1.6 % wide
  double total = 0.0;
  for (int i = 0; i < 2 * kBins; ++i) {
    if (histogram_.empty() || histogram_[i] == 0) continue;
    const double sign = i < kBins ? 1.0 : -1.0;
    const double low = bin_low(i % kBins);
    const double width = bin_high(i % kBins) - low;
    double sum = 0.0;
    for (int k = 0; k < kPoints; ++k) {
      const double x = sign * (low + width * (k + 0.5) / kPoints);
      const double q = std::floor(x / scale + 0.5);
      const double limit_low = double{1.0} * range.qmin - zero_point;
      const double limit_high = double{1.0} * range.qmax - zero_point;
      sum += std::abs(std::clamp(q, limit_low, limit_high) * scale - x) / (std::abs(x) + 1e-8);
    }
    total += static_cast<double>(histogram_[i]) * sum / kPoints;
  }
  return histogram_count_ == 0 ? 0.0 : total / static_cast<double>(histogram_count_);
}

double SiteStatistics::count_below(double x) const {
  double below = 0.0;
  for (int i = 0; i < 2 * kBins; ++i) {
    if (histogram_[i] == 0) continue;
    const int bin = i % kBins;
    const double low = std::max(min(), i < kBins ? bin_low(bin) : -bin_high(bin));
    const double high = std::min(max(), i < kBins ? bin_high(bin) : -bin_low(bin));
    const double share = high > low ? std::clamp((x - low) / (high - low), 0.0, 1.0) : x > low;
    below += share * static_cast<double>(histogram_[i]);
  }
  return below;
}

std::vector<int64_t> SiteStatistics::uniform_bins(int count) const {
  std::vector<int64_t> bins(static_cast<size_t>(count), 0);
  if (empty() || !finite()) return bins;
  int64_t before = 0;
  for (int i = 0; i < count; ++i) {
    const double edge = min() + (max() - min()) * (i + 1) / count;
    const int64_t below = i + 1 == count ? histogram_count_ : std::llround(count_below(edge));
    bins[static_cast<size_t>(i)] = below - before;
    before = below;
  }
  return bins;
}

double power_ratio_db(double mean_square, double mean_squared_error) {
  if (!(mean_square > 0.0)) return 0.0;
  if (!(mean_squared_error > 0.0)) return 200.0;
  return std::min(200.0, 10.0 * std::log10(mean_square / mean_squared_error));
}

}  // namespace qnpu
