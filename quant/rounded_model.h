// The float model with its linears' weights on their grids, as stage two observes it.
#pragma once

#include <map>

#include "model/graph.h"
#include "quant/float_model.h"

namespace qnpu {

// A weight [N, K] as scale * integer, by the scales of its site, or, where there are none, by those
// that weight_scales chooses.
torch::Tensor rounded_weight(const torch::Tensor& weight, const Site& site);

// Weights of the decoder layers' linears are rounded. Weights in blocks stay as they are.
FloatModel with_rounded_weights(FloatModel model, const Graph& graph);

// QParams of the activations whose scales `spec` learned, by site: inputs and outputs of the
// linears, of at most 8 bits.
std::map<int, QParams> learned_ranges(const Graph& graph, const LearnSpec& spec);

}  // namespace qnpu
