#include "eval/metrics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/status.h"

namespace qnpu {
namespace {

// Four numbers at once, in the compilers' portable notation: the rules of floating-point exceptions
// keep GCC from making vector instructions of the plain loops by itself.
using Float4 = float __attribute__((vector_size(16)));
using Int4 = int32_t __attribute__((vector_size(16)));
constexpr size_t kBlock = 512;

Float4 load(const float* x) {
  Float4 v;
  std::memcpy(&v, x, sizeof v);
  return v;
}

Float4 larger(Float4 a, Float4 b) { return a < b ? b : a; }

// exp(x) for x <= 0: x = n * log 2 + r with |r| <= log(2) / 2, Taylor in r, exponent bits from n.
// Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits. Inputs below -87 count as
// -87: beside the row's maximum, which gives 1, such a term is nothing. NaN stays NaN.
Float4 exp_nonpositive(Float4 x) {
  constexpr float kRound = 12582912.0f;
  x = larger(x, Float4{} - 87.0f);
  const Float4 shifted = x * 1.44269504f + kRound;
  const Float4 n = shifted - kRound;
  const Float4 r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Float4 p = r * (1.0f / 720) + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const Int4 exponent = std::bit_cast<Int4>(shifted) - std::bit_cast<int32_t>(kRound);
  return p * std::bit_cast<Float4>((exponent + 127) << 23);
}

float largest(std::span<const float> x) {
  Float4 lanes = Float4{} + x[0];
  size_t i = 0;
  for (; i + 4 <= x.size(); i += 4) lanes = larger(lanes, load(&x[i]));
  float max = std::max({lanes[0], lanes[1], lanes[2], lanes[3]});
  for (; i < x.size(); ++i) max = std::max(max, x[i]);
  return max;
}

// In double, in eight independent sums.
double sum_of(const float* x, size_t n) {
  double lanes[8] = {};
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (size_t j = 0; j < 8; ++j) lanes[j] += x[i + j];
  }
  for (; i < n; ++i) lanes[0] += x[i];
  return std::accumulate(lanes, lanes + 8, 0.0);
}

// Sum of e^(x - max), and of e^(x - max) * (x - other) if there is another row.
struct ExpSums {
  double plain = 0.0;
  double weighted = 0.0;
};
ExpSums exp_sums(std::span<const float> x, float max, const float* other = nullptr) {
  ExpSums sums;
  float e[kBlock], product[kBlock];
  for (size_t begin = 0; begin < x.size(); begin += kBlock) {
    const size_t n = std::min(kBlock, x.size() - begin);
    float padded[kBlock];  // so that a short last block is like any other
    std::memcpy(padded, &x[begin], n * sizeof(float));
    std::fill(padded + n, padded + kBlock, max);
    for (size_t i = 0; i < kBlock; i += 4) {
      const Float4 v = exp_nonpositive(load(padded + i) - max);
      std::memcpy(e + i, &v, sizeof v);
    }
    sums.plain += sum_of(e, n);
    if (!other) continue;
    for (size_t i = 0; i < n; ++i) product[i] = e[i] * (padded[i] - other[begin + i]);
    sums.weighted += sum_of(product, n);
  }
  return sums;
}

}  // namespace

double negative_log_likelihood(std::span<const float> logits, int target) {
  QNPU_ASSERT(target >= 0 && static_cast<size_t>(target) < logits.size());
  const float max = largest(logits);
  return std::log(exp_sums(logits, max).plain) +
         (double{max} - logits[static_cast<size_t>(target)]);
}

// With Z = sum of e^(x - max): sum p (log p - log q)
//   = sum p (a - b) - (max_a + log Z_a) + (max_b + log Z_b), where a is the reference.
double kl_divergence(std::span<const float> reference, std::span<const float> tested) {
  QNPU_ASSERT(reference.size() == tested.size());
  const float max_a = largest(reference);
  const float max_b = largest(tested);
  const ExpSums a = exp_sums(reference, max_a, tested.data());
  const ExpSums b = exp_sums(tested, max_b);
  const double kl = a.weighted / a.plain - (double{max_a} - max_b) - std::log(a.plain / b.plain);
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
