// Choosing the next token from the logits' integers. Float is allowed here: nothing flows back.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace qnpu {

struct SamplingOptions {
  double temperature = 0.0;  // 0: greedy
  int top_k = 0;             // 0: no limit
  double top_p = 1.0;        // of these, the fewest of the likeliest that hold this probability
  uint64_t seed = 0;
};

// The largest logit; of equal ones the lowest id.
int greedy_token(std::span<const int16_t> logits);

// Deterministic for a seed: the generator and its mapping to [0, 1) are fixed by us.
class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options);  // Error: a value outside its range
  int sample(std::span<const int16_t> logits, double logits_scale);

 private:
  void weigh(double logits_scale);
  double weight(int below) const { return weights_[static_cast<size_t>(below)]; }
  double collect(std::span<const int16_t> logits) const;
  double keep_top_k(double total) const;
  double keep_top_p(double total) const;

  SamplingOptions options_;
  std::mt19937_64 random_;
  double scale_ = 0.0;           // of the logits that weights_ are for
  std::vector<double> weights_;  // of a logit by how far it lies below the largest
};

}  // namespace qnpu
