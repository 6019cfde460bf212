// Losses. Those over the vocabulary go by chunks of rows: logits of all tokens never exist at once,
// and each chunk's gradient is formed with its loss.
#pragma once

#include "quant/learn/linear_group.h"
#include "quant/tensor.h"

namespace qnpu {

struct LossResult {
  double sum = 0.0;       // over the rows
  int64_t rows = 0;       // that have a loss
  torch::Tensor dhidden;  // [T, D], of factor * sum, if asked for (factor not 0)
};

// -log softmax(head(hidden))[target]; rows with a negative target have no loss. hidden [T, D]
// (input of the head), targets [T] int64.
LossResult cross_entropy_loss(const torch::Tensor& hidden, const LinearGroup& head,
                              const torch::Tensor& targets, double factor);

// KL divergence of softmax(head(hidden)) from the teacher's distribution.
LossResult kl_loss(const torch::Tensor& hidden, const LinearGroup& head,
                   const torch::Tensor& teacher_hidden, const LinearGroup& teacher_head,
                   double factor);

// Mean over the channels of (hidden - teacher)^2, by row; no head is needed.
LossResult hidden_loss(const torch::Tensor& hidden, const torch::Tensor& teacher_hidden,
                       double factor);

// The token after each one: [B, T] -> [B * T], -1 for the last of a sequence.
torch::Tensor next_tokens(const torch::Tensor& tokens);

}  // namespace qnpu
