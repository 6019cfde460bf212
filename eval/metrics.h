// What a model's logits say about a text: pure functions of rows of logits, and sums over many rows
// from which every reported figure follows. Rows may be as long as a vocabulary, so exponentials
// are taken in float (relative error below 3e-7, vectorised by the compiler) and summed in double.
#pragma once

#include <cstdint>
#include <span>

namespace qnpu {

// -log softmax(logits)[target] in nats. NaN if a logit is NaN.
double negative_log_likelihood(std::span<const float> logits, int target);

// KL(softmax(reference) || softmax(tested)) in nats, never negative; rows of one length.
double kl_divergence(std::span<const float> reference, std::span<const float> tested);

// Index of the largest logit, the first one of equals.
int top1(std::span<const float> logits);

// Likelihood of the tokens of a text.
struct LikelihoodSum {
  double nll = 0.0;  // nats
  int64_t tokens = 0;

  void add(std::span<const float> logits, int target);
  double perplexity() const;                  // exp(nll / tokens)
  double bits_per_byte(int64_t bytes) const;  // of the text that the tokens stand for
};

// How near the tested model's predictions are to the reference's.
struct DivergenceSum {
  double kl = 0.0;  // nats
  int64_t agreeing = 0;
  int64_t tokens = 0;

  void add(std::span<const float> reference, std::span<const float> tested);
  double kl_divergence() const;   // mean per token
  double top1_agreement() const;  // share of tokens whose most probable successor is the same
};

}  // namespace qnpu
