// Causal attention, the nodes from kScores to kContext in one: blocks of query positions, so that
// no T x T matrix of all heads exists, and probabilities computed again in the backward pass.
#pragma once

#include "quant/tensor.h"

namespace qnpu {

struct AttentionSpec {
  int64_t batch = 1;
  int64_t tokens = 0;  // of each sequence
  int64_t kv_heads = 0;
  int64_t group = 1;  // query heads that share a KV head
  int64_t head_dim = 0;
  double scale = 1.0;  // scores = scale * q . k

  // Rows before the first token, visible to all of them: [P, kv_heads * head_dim], or undefined.
  // The values may have a gradient (they turn with R2).
  torch::Tensor prefix_k;
  torch::Tensor prefix_v;
};

// q [B * T, H * hd], k and v [B * T, KV * hd] -> [B * T, H * hd], all of one type.
//
//   S = scale q k'    P = softmax(S)    O = P v
//   dv = P' dO    dP = dO v'    dS = P (dP - rowsum(dO * O)) scale    dq = dS k    dk = dS' q
torch::Tensor attention(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                        const AttentionSpec& shape);

}  // namespace qnpu
