#include "runtime/sampling.h"

#include <algorithm>
#include <cmath>

#include "base/status.h"

namespace qnpu {
namespace {

// Of less probability than the generator's resolution: cannot be drawn.
constexpr double kLeastWeight = 0x1p-60;

// A token that may be drawn, and how far its logit lies below the largest.
struct Candidate {
  int32_t token;
  int32_t below;
};

// What one draw needs, once for all samplers of a thread: a server has many.
struct Workspace {
  std::vector<Candidate> candidates;
  std::vector<Candidate> sorted;
  std::vector<uint32_t> places;
};
thread_local Workspace workspace;

int largest_of(std::span<const int16_t> logits) {
  int16_t largest = logits[0];
  for (const int16_t logit : logits) largest = std::max(largest, logit);
  return largest;
}

// The likeliest first, equal ones in the order of ids, which they come in. Counting them by their
// logits (D differences) takes time V + D, however flat the distribution is.
void sort_candidates(size_t differences) {
  std::vector<uint32_t>& places = workspace.places;
  places.assign(differences + 1, 0);
  for (const Candidate& c : workspace.candidates) ++places[static_cast<size_t>(c.below) + 1];
  for (size_t d = 0; d < differences; ++d) places[d + 1] += places[d];
  workspace.sorted.resize(workspace.candidates.size());
  for (const Candidate& c : workspace.candidates) {
    workspace.sorted[places[static_cast<size_t>(c.below)]++] = c;
  }
  std::swap(workspace.candidates, workspace.sorted);
}

}  // namespace

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

// weights_[d] = exp(-d * scale / temperature), as far down as they count.
void Sampler::weigh(double logits_scale) {
  if (scale_ == logits_scale) return;
  scale_ = logits_scale;
  const double step = logits_scale / options_.temperature;
  weights_.clear();
  for (int d = 0; d < 1 << 16; ++d) {
    const double weight = std::exp(-d * step);
    if (weight < kLeastWeight) break;
    weights_.push_back(weight);
  }
}

// Fills the workspace with candidates in the order of ids. Returns the sum of their weights.
double Sampler::collect(std::span<const int16_t> logits) const {
  const int largest = largest_of(logits);
  std::vector<Candidate>& candidates = workspace.candidates;
  candidates.resize(logits.size());
  size_t count = 0;
  double total = 0.0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const int below = largest - logits[i];
    if (static_cast<size_t>(below) >= weights_.size()) continue;
    candidates[count++] = {static_cast<int32_t>(i), below};
    total += weight(below);
  }
  candidates.resize(count);
  return total;
}

double Sampler::keep_top_k(double total) const {
  std::vector<Candidate>& candidates = workspace.candidates;
  const auto k = static_cast<size_t>(options_.top_k);
  if (k == 0 || k >= candidates.size()) return total;
  candidates.resize(k);
  total = 0.0;
  for (const Candidate& c : candidates) total += weight(c.below);
  return total;
}

double Sampler::keep_top_p(double total) const {
  if (options_.top_p >= 1.0) return total;
  std::vector<Candidate>& candidates = workspace.candidates;
  double sum = 0.0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    sum += weight(candidates[i].below);
    if (sum >= options_.top_p * total) candidates.resize(i + 1);
  }
  return sum;
}

int Sampler::sample(std::span<const int16_t> logits, double logits_scale) {
  if (options_.temperature == 0.0) return greedy_token(logits);
  weigh(logits_scale);
  double total = collect(logits);
  const auto k = static_cast<size_t>(options_.top_k);
  if ((k != 0 && k < workspace.candidates.size()) || options_.top_p < 1.0) {
    sort_candidates(weights_.size());
    total = keep_top_p(keep_top_k(total));
  }
  const double uniform = static_cast<double>(random_() >> 11) * 0x1p-53;
  double left = uniform * total;
  for (const Candidate& c : workspace.candidates) {
    left -= weight(c.below);
    if (left < 0.0) return c.token;
  }
  return workspace.candidates.back().token;  // the sum's rounding
}

}  // namespace qnpu
