#include "runtime/sampling.h"

#include <algorithm>
#include <cmath>

#include "base/status.h"

namespace qnpu {

int greedy_token(std::span<const int16_t> logits) {
  return static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

Sampler::Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) {
  if (!(options.temperature >= 0.0 && options.temperature <= 100.0)) {
    fail("a temperature of {}: give 0 (greedy) to 100", options.temperature);
  }
  if (options.top_k < 0) fail("top-k of {}: give 0 (no limit) or more", options.top_k);
  if (!(options.top_p > 0.0 && options.top_p <= 1.0)) {
    fail("top-p of {}: give a probability above 0 and at most 1", options.top_p);
  }
}

// Fills the candidates with weights exp((logit - largest) / temperature), the likeliest first where
// a limit needs the order (ties by id), cut to top_k.
void Sampler::collect(std::span<const int16_t> logits, double logits_scale) {
  const int largest = *std::max_element(logits.begin(), logits.end());
  const double step = logits_scale / options_.temperature;
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    const double weight = std::exp((logits[i] - largest) * step);
    // Beyond 2^-60 of the likeliest nothing can be drawn; skipping keeps the sort short.
    if (weight > 0x1p-60) candidates_.push_back({static_cast<int>(i), weight});
  }
  if (options_.top_k == 0 && options_.top_p >= 1.0) return;
  size_t keep = candidates_.size();
  if (options_.top_k > 0) keep = std::min(keep, static_cast<size_t>(options_.top_k));
  std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(keep),
                    candidates_.end(), [&](const Candidate& a, const Candidate& b) {
                      const int16_t la = logits[static_cast<size_t>(a.token)];
                      const int16_t lb = logits[static_cast<size_t>(b.token)];
                      return la != lb ? la > lb : a.token < b.token;
                    });
  candidates_.resize(keep);
}

// Cuts the candidates to the shortest head that holds top_p of `total`; returns the head's weight.
double Sampler::keep_top_p(double total) {
  double sum = 0.0;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    sum += candidates_[i].weight;
    if (sum >= options_.top_p * total) {
      candidates_.resize(i + 1);
      break;
    }
  }
  return sum;
}

int Sampler::sample(std::span<const int16_t> logits, double logits_scale) {
  if (options_.temperature == 0.0) return greedy_token(logits);
  collect(logits, logits_scale);
  double total = 0.0;
  for (const Candidate& candidate : candidates_) total += candidate.weight;
  if (options_.top_p < 1.0) total = keep_top_p(total);
  const double uniform = static_cast<double>(random_() >> 11) * 0x1p-53;
  double left = uniform * total;
  for (const Candidate& candidate : candidates_) {
    left -= candidate.weight;
    if (left < 0.0) return candidate.token;
  }
  return candidates_.back().token;  // the sum's rounding
}

}  // namespace qnpu
