#include "quant/weights.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "base/status.h"
#include "quant/ranges.h"

namespace qnpu {
namespace {

constexpr int kLanes = 8;
constexpr int kCandidates = 80;
constexpr float kSmallestClip = 0.3f;
constexpr int64_t kWorthThreads = 1 << 16;  // weights; below, threads cost more than they save

// Nearest integer, halves to even, for |x| < 2^22: the sum's last bit is one, so the hardware's own
// rounding does it. Vectorises on every instruction set.
inline float round_half_even(float x) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23
  return (x + kMagic) - kMagic;
}

float largest_magnitude(const float* w, int64_t k) {
  std::array<float, kLanes> lanes{};
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lanes[l] = std::max(lanes[l], std::fabs(w[i + l]));
  }
  for (; i < k; ++i) lanes[0] = std::max(lanes[0], std::fabs(w[i]));
  return *std::max_element(lanes.begin(), lanes.end());
}

// Squared error of a row in units of the scale, for inverse = 1 / scale.
float squared_error(const float* w, int64_t k, float inverse, float qmin, float qmax) {
  std::array<float, kLanes> lanes{};
  const auto error = [&](float x) {
    const float v = x * inverse;
    const float q = round_half_even(std::min(std::max(v, qmin), qmax));
    return (v - q) * (v - q);
  };
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lanes[l] += error(w[i + l]);
  }
  for (; i < k; ++i) lanes[0] += error(w[i]);
  float sum = 0.0f;
  for (float lane : lanes) sum += lane;
  return sum;
}

float mse_scale(const float* w, int64_t k, float largest, float qmin, float qmax) {
  const auto error_of = [&](float scale) {
    return squared_error(w, k, 1.0f / scale, qmin, qmax) * scale * scale;
  };
  float best_scale = largest / qmax;
  float best_error = error_of(best_scale);
  for (int i = kCandidates - 2; i >= 0; --i) {
    const float clip = kSmallestClip + (1.0f - kSmallestClip) * i / (kCandidates - 1);
    const float scale = clip * largest / qmax;
    const float error = error_of(scale);
    if (error < best_error) {
      best_error = error;
      best_scale = scale;
    }
  }
  return best_scale;
}

float percentile_scale(const float* w, int64_t k, double percentile, float qmax) {
  std::vector<float> magnitudes(static_cast<size_t>(k));
  for (int64_t i = 0; i < k; ++i) magnitudes[i] = std::fabs(w[i]);
  const auto rank = static_cast<int64_t>(std::ceil(percentile / 100.0 * k)) - 1;
  const auto nth = magnitudes.begin() + std::clamp<int64_t>(rank, 0, k - 1);
  std::nth_element(magnitudes.begin(), nth, magnitudes.end());
  return *nth / qmax;
}

float mean3sigma_scale(const float* w, int64_t k, float qmax) {
  double sum = 0.0;
  double squares = 0.0;
  for (int64_t i = 0; i < k; ++i) {
    sum += w[i];
    squares += static_cast<double>(w[i]) * w[i];
  }
  const double mean = sum / k;
  const double sigma = std::sqrt(std::max(0.0, squares / k - mean * mean));
  return static_cast<float>((std::fabs(mean) + 3.0 * sigma) / (qmax + 1.0));
}

float row_scale(const float* w, int64_t k, Observer observer, double percentile,
                IntegerRange range) {
  const auto qmax = static_cast<float>(range.qmax);
  const float largest = largest_magnitude(w, k);
  if (largest == 0.0f) return 0.0f;
  float scale = largest / qmax;
  if (observer == Observer::kMse) {
    scale = mse_scale(w, k, largest, static_cast<float>(range.qmin), qmax);
  }
  if (observer == Observer::kPercentile) scale = percentile_scale(w, k, percentile, qmax);
  if (observer == Observer::kMean3Sigma) scale = mean3sigma_scale(w, k, qmax);
  return scale > 0.0f ? scale : largest / qmax;  // a percentile of a sparse row may be 0
}

}  // namespace

IntegerRange weight_range(const QuantSpec& spec) {
  if (spec.bitwidth == 8) return {-127, 127};
  if (spec.bitwidth != 4) {
    fail("weights of {} bits: only 4 and 8 are supported", spec.bitwidth);
  }
  return {spec.narrow_range ? -7 : -8, 7};
}

void weight_scales(WeightRows rows, const QuantSpec& spec, bool rotated, float* scale) {
  const Observer observer = resolve_observer(spec, rotated);
  const IntegerRange range = weight_range(spec);
#pragma omp parallel for schedule(static) if (rows.n * rows.k > kWorthThreads)
  for (int64_t r = 0; r < rows.n; ++r) {
    scale[r] = row_scale(rows.data + r * rows.k, rows.k, observer, spec.percentile, range);
  }
}

void round_weights(WeightRows rows, const float* scale, IntegerRange range, int8_t* q) {
  const auto qmin = static_cast<float>(range.qmin), qmax = static_cast<float>(range.qmax);
#pragma omp parallel for schedule(static) if (rows.n * rows.k > kWorthThreads)
  for (int64_t r = 0; r < rows.n; ++r) {
    const float* w = rows.data + r * rows.k;
    int8_t* out = q + r * rows.k;
    const float s = scale[r];
    if (s == 0.0f) {
      std::fill_n(out, rows.k, int8_t{0});
      continue;
    }
    for (int64_t i = 0; i < rows.k; ++i) {
      const float v = std::min(std::max(w[i] / s, qmin), qmax);
      out[i] = static_cast<int8_t>(static_cast<int32_t>(round_half_even(v)));
    }
  }
}

double weight_error(WeightRows rows, const float* scale, const int8_t* q) {
  std::vector<double> errors(static_cast<size_t>(rows.n));
#pragma omp parallel for schedule(static) if (rows.n * rows.k > kWorthThreads)
  for (int64_t r = 0; r < rows.n; ++r) {
    for (int64_t i = r * rows.k; i < (r + 1) * rows.k; ++i) {
      const double d = static_cast<double>(rows.data[i]) - static_cast<double>(scale[r]) * q[i];
      errors[r] += d * d;
    }
  }
  double total = 0.0;
  for (double e : errors) total += e;
  return total;
}

double sum_of_squares(WeightRows rows) {
  double total = 0.0;
  for (int64_t i = 0; i < rows.n * rows.k; ++i) {
    total += static_cast<double>(rows.data[i]) * rows.data[i];
  }
  return total;
}

}  // namespace qnpu
