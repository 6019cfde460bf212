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

// Fills the candidates with weights exp((logit - largest) / temperature), in the order of ids.
// Returns their sum.
double Sampler::collect(std::span<const int16_t> logits, double logits_scale) {
  const int largest = *std::max_element(logits.begin(), logits.end());
  const double step = logits_scale / options_.temperature;
  candidates_.clear();
  double total = 0.0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double weight = std::exp((logits[i] - largest) * step);
    if (weight < 0x1p-60) continue;  // cannot be drawn: less than the generator's resolution
    candidates_.push_back({static_cast<int>(i), logits[i], weight});
    total += weight;
  }
  return total;
}

// Moves the `count` likeliest candidates to the front, in order; ties go to the lower id.
void Sampler::sort_head(size_t count) {
  std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(count),
                    candidates_.end(), [](const Candidate& a, const Candidate& b) {
                      return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
                    });
}

double Sampler::keep_top_k(double total) {
  const auto k = static_cast<size_t>(options_.top_k);
  if (k == 0 || k >= candidates_.size()) return total;
  sort_head(k);
  candidates_.resize(k);
  total = 0.0;
  for (const Candidate& candidate : candidates_) total += candidate.weight;
  return total;
}

// The nucleus is mostly a few tokens: sort a short head first, and more only if it is too light.
double Sampler::keep_top_p(double total) {
  if (options_.top_p >= 1.0) return total;
  for (size_t head = 64;; head *= 8) {
    head = std::min(head, candidates_.size());
    sort_head(head);
    double sum = 0.0;
    for (size_t i = 0; i < head; ++i) {
      sum += candidates_[i].weight;
      if (sum < options_.top_p * total) continue;
      candidates_.resize(i + 1);
      return sum;
    }
    if (head == candidates_.size()) return sum;  // the sum's rounding
  }
}

int Sampler::sample(std::span<const int16_t> logits, double logits_scale) {
  if (options_.temperature == 0.0) return greedy_token(logits);
  const double total = keep_top_p(keep_top_k(collect(logits, logits_scale)));
  const double uniform = static_cast<double>(random_() >> 11) * 0x1p-53;
  double left = uniform * total;
  for (const Candidate& candidate : candidates_) {
    left -= candidate.weight;
    if (left < 0.0) return candidate.token;
  }
  return candidates_.back().token;  // the sum's rounding
}

}  // namespace qnpu
