#include "eval/metrics.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/status.h"

namespace qnpu {
namespace {

// Independent partial sums: without them the order of additions would forbid vector instructions.
constexpr size_t kLanes = 16;

// exp(x) for x <= 0: x = n * log 2 + r with |r| <= log(2) / 2, Taylor in r, exponent bits from n.
// Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits. Inputs below -87 count as
// -87: beside the row's maximum, which gives 1, such a term is nothing.
inline float exp_nonpositive(float x) {
  constexpr float kRound = 12582912.0f;
  x = x < -87.0f ? -87.0f : x;
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const int32_t exponent = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kRound);
  return p * std::bit_cast<float>((exponent + 127) << 23);
}

float largest(std::span<const float> x) {
  float lane[kLanes];
  std::fill_n(lane, kLanes, x[0]);
  size_t i = 0;
  for (; i + kLanes <= x.size(); i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lane[j] = lane[j] < x[i + j] ? x[i + j] : lane[j];
  }
  for (; i < x.size(); ++i) lane[0] = std::max(lane[0], x[i]);
  return *std::max_element(lane, lane + kLanes);
}

// Sum of term(i) for i in [0, n).
template <typename Term>
double lane_sum(size_t n, Term term) {
  double lane[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lane[j] += term(i + j);
  }
  for (; i < n; ++i) lane[0] += term(i);
  double sum = 0.0;
  for (double partial : lane) sum += partial;
  return sum;
}

double exp_sum(std::span<const float> x, float max) {
  const float* values = x.data();
  return lane_sum(x.size(), [=](size_t i) { return exp_nonpositive(values[i] - max); });
}

}  // namespace

double negative_log_likelihood(std::span<const float> logits, int target) {
  QNPU_ASSERT(target >= 0 && static_cast<size_t>(target) < logits.size());
  const float max = largest(logits);
  return std::log(exp_sum(logits, max)) + (double{max} - logits[static_cast<size_t>(target)]);
}

// With Z = sum of e^(x - max): sum p (log p - log q)
//   = sum p (a - b) - (max_a + log Z_a) + (max_b + log Z_b), where a is the reference.
double kl_divergence(std::span<const float> reference, std::span<const float> tested) {
  QNPU_ASSERT(reference.size() == tested.size());
  const float max_a = largest(reference);
  const float max_b = largest(tested);
  const float* a = reference.data();
  const float* b = tested.data();
  const double z_a = exp_sum(reference, max_a);
  const double z_b = exp_sum(tested, max_b);
  const double weighted = lane_sum(
      reference.size(), [=](size_t i) { return exp_nonpositive(a[i] - max_a) * (a[i] - b[i]); });
  const double kl = weighted / z_a - (double{max_a} - max_b) - std::log(z_a / z_b);
  return kl < 0.0 ? 0.0 : kl;  // NaN stays
}

int top1(std::span<const float> logits) {
  const float max = largest(logits);
  return static_cast<int>(std::find(logits.begin(), logits.end(), max) - logits.begin());
}

void LikelihoodSum::add(std::span<const float> logits, int target) {
  nll += negative_log_likelihood(logits, target);
  ++tokens;
}

double LikelihoodSum::perplexity() const { return std::exp(nll / static_cast<double>(tokens)); }

double LikelihoodSum::bits_per_byte(int64_t bytes) const {
  return nll / std::log(2.0) / static_cast<double>(bytes);
}

void DivergenceSum::add(std::span<const float> reference, std::span<const float> tested) {
  kl += qnpu::kl_divergence(reference, tested);
  agreeing += top1(reference) == top1(tested);
  ++tokens;
}

double DivergenceSum::kl_divergence() const { return kl / static_cast<double>(tokens); }

double DivergenceSum::top1_agreement() const {
  return static_cast<double>(agreeing) / static_cast<double>(tokens);
}

}  // namespace qnpu
