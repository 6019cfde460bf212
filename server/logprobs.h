// Probabilities of tokens from the logits' integers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "server/channel.h"

namespace qnpu::server {

// Natural logarithms of softmax(scale * row). Logits are 16-bit integers, so the exponentials of
// all differences that can occur fit into a table.
class LogSoftmax {
 public:
  explicit LogSoftmax(double scale);

  // log sum exp(scale * row[i]) over a row [V].
  double log_sum(std::span<const int16_t> row) const;
  double logprob(int16_t logit, double log_sum) const { return scale_ * logit - log_sum; }

  // Fills in `output` what is known of its token in a row of logits: its log-probability, and the
  // `top` likeliest tokens with it behind them if it is none of them. Of equal logits the lower id
  // comes first.
  void describe(std::span<const int16_t> row, int top, TokenOutput& output) const;

 private:
  double scale_;
  std::vector<double> exp_;  // exp(-scale * d) for d = 0 .. 65535
};

}  // namespace qnpu::server
