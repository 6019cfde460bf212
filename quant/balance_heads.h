// Exact, offline transforms within attention that make what is rounded with one scale more even.
//
//   keys    q and k of RoPE pair i of a key head: k_i / s_i and q_i s_i leave every score as it is.
//           s_i = sqrt(max|k_i| / max|q_i|): both then have the maximum sqrt(max|q_i| max|k_i|).
//           A pair, because RoPE turns its two channels into each other; with norms of q and k,
//           one s for the pair i of all heads, since their gamma is shared.
//   values  channel j of value head h: v_j / s_j, and column j of o_proj times s_j.
//           s_j = c_h sqrt(m_j / |W_j|), with m_j = max|x_j| of o_proj's input and |W_j| the norm
//           of its columns: R2 spreads a head's rounding noise evenly over its channels, and this s
//           makes the least of it, since sum_j s_j^2 |W_j|^2 times mean_j (m_j / s_j)^2 is smallest
//           (Cauchy-Schwarz). c_h gives all heads the same mean square: they share one scale.
//
// Query heads that share keys and values share their s.
#pragma once

#include <map>
#include <vector>

#include "model/graph.h"
#include "quant/float_model.h"
#include "quant/tensor.h"

namespace qnpu {

// The sites whose channel maxima (channel_maxima.h) are needed.
std::vector<int> balance_sites(const Graph& graph, const BalanceHeadsSpec& spec);

// Needs fold_norms first, before rotations. Keeps the function. `maxima` by site: [cols].
void balance_heads(FloatModel& model, const Graph& graph,
                   const std::map<int, torch::Tensor>& maxima, const BalanceHeadsSpec& spec);

}  // namespace qnpu
