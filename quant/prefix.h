// Prefix tokens (attention sinks): the first tokens of every sequence are the same, so their keys
// and values are constants, and what only they do to the activations is never quantized.
#pragma once

#include <vector>

#include "model/graph.h"
#include "quant/float_model.h"

namespace qnpu {

// What `tokens`, read from an empty cache, leave in the float model's caches. A prefix that the
// model has already is not looked at. Error: a token outside the vocabulary, more than the model's
// positions.
Prefix compute_prefix(const FloatModel& model, const Graph& graph, std::vector<int> tokens);

}  // namespace qnpu
