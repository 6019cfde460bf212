// Questions with several answers of which a model chooses the likeliest: pure functions of rows of
// logits, and counts over many questions from which the reported figures follow.
#pragma once

#include <cstdint>
#include <span>

namespace qnpu {

// Sum over i of log softmax(rows[i])[targets[i]], in nats; rows [targets.size(), V], row by row.
double log_likelihood(std::span<const float> rows, std::span<const int32_t> targets);

// Index of the largest score, the first one of equals.
int likeliest(std::span<const double> scores);

// A share of right answers.
struct Accuracy {
  int64_t right = 0;
  int64_t items = 0;

  double share() const;           // p = right / items
  double standard_error() const;  // sqrt(p (1 - p) / (items - 1)); NaN for one item
};

// `plain` chooses by log-likelihood; `normalised` by log-likelihood per character of the answer, so
// that long answers are not unlikely for their length alone.
struct ChoiceAccuracy {
  Accuracy plain;
  Accuracy normalised;

  // One item: log-likelihoods and characters (above 0) of its choices, and the right one's index.
  void add(std::span<const double> log_likelihoods, std::span<const int64_t> characters, int gold);
};

}  // namespace qnpu
