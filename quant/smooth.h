// SmoothQuant (method.md 2.10): outlier channels of activations become outlier channels of weights,
// exactly and offline. With x the input of the linears W,
//
//   s_j = max(max|x_j|^alpha / max|W[:, j]|^(1 - alpha), 1e-5);  x_j / s_j;  W[:, j] * s_j
//
// Who divides: the norm before q, k, v and before gate, up (its gamma becomes 1 / s); the rows of
// up_proj for down_proj, since silu(gate) * up is linear in up; the rows of v_proj for o_proj where
// each query head has values of its own (no grouped heads), and a prefix's values with them.
#pragma once

#include <map>
#include <vector>

#include "model/graph.h"
#include "quant/float_model.h"
#include "quant/tensor.h"

namespace qnpu {

// The inputs of linears whose channel maxima (channel_maxima.h) are needed.
std::vector<int> smooth_sites(const Graph& graph);

// Needs fold_norms first, and no R1 (between norm and linears there is then a rotation). Keeps the
// function. Each gamma is put on the grid of the 16-bit table that will hold it, and s is taken
// from that: rounding the table later changes nothing. `maxima` by site: [cols].
void smooth(FloatModel& model, const Graph& graph, const std::map<int, torch::Tensor>& maxima,
            const SmoothSpec& spec);

}  // namespace qnpu
