// Prefix tokens (attention sinks): the first tokens of every sequence are the same, so their keys
// and values are constants, and what only they do to the activations is never quantized.
#pragma once

#include <vector>

#include "model/graph.h"
#include "quant/calibrate.h"
#include "quant/float_model.h"

namespace qnpu {

// What `tokens`, read from an empty cache, leave in the float model's caches. A prefix that the
// model has already is not looked at. Error: a token outside the vocabulary, more than the model's
// positions.
Prefix compute_prefix(const FloatModel& model, const Graph& graph, std::vector<int> tokens);

// How far the largest tokens stand out at the inputs of down_proj, with the model's prefix: the
// mean over layers of log2(largest / median), both over the tokens of the windows, of a token's
// largest magnitude. 2 to 4 without massive activations.
double outlier_bits(const FloatModel& model, const Graph& graph,
                    const std::vector<Window>& windows);

struct PrefixSearch {
  Prefix prefix;
  std::vector<double> bits;  // outlier_bits without a prefix, and after each of its tokens
};

// Adds the token that lowers outlier_bits most, one after the other, up to spec.max_tokens; a token
// that lowers it by less than 5 % is not taken, and of those that are within 5 % of the best, the
// one is with the least KL divergence from the model without a prefix. Tried are `first` (what a
// sequence may begin with anyway) and the tokens of the texts where outliers are, on the texts and
// on short windows that begin with each of their most frequent tokens.
PrefixSearch find_prefix(const FloatModel& model, const Graph& graph,
                         const std::vector<Window>& texts, const std::vector<int>& first,
                         const PrefixSpec& spec, const WindowProgress& progress);

}  // namespace qnpu
