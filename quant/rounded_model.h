// The float model with its linears' weights on their grids, as stage two observes it.
#pragma once

#include <map>

#include "model/graph.h"
#include "quant/float_model.h"

namespace qnpu {

// Weights of the decoder layers' linears become scale * integer, by the scales of their sites, or,
// where there is none, by those that weight_scales chooses. Weights in blocks stay as they are.
FloatModel with_rounded_weights(FloatModel model, const Graph& graph);

// QParams of the activations whose scales `spec` learned, by site: inputs and outputs of the
// linears, of at most 8 bits.
std::map<int, QParams> learned_ranges(const Graph& graph, const LearnSpec& spec);

}  // namespace qnpu
