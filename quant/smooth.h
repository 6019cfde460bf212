// SmoothQuant (method.md 2.10): outlier channels of activations become outlier channels of weights,
// exactly and offline (channel_pairs.h). With x the input of the linears W,
//
//   s_j = max(max|x_j|^alpha / max|W[:, j]|^(1 - alpha), 1e-5);  x_j / s_j;  W[:, j] * s_j
//
// From v to o only where each query head has values of its own (no grouped heads).
#pragma once

#include <map>
#include <vector>

#include "model/graph.h"
#include "quant/float_model.h"
#include "quant/tensor.h"

namespace qnpu {

// The inputs of linears whose channel maxima (channel_maxima.h) are needed.
std::vector<int> smooth_sites(const Graph& graph);

// Needs fold_norms first, and no R1. Keeps the function. `maxima` by site: [cols].
void smooth(FloatModel& model, const Graph& graph, const std::map<int, torch::Tensor>& maxima,
            const SmoothSpec& spec);

}  // namespace qnpu
