// Can a recipe's steps be done, together and on this model? Asked before the long work begins.
#pragma once

#include "model/graph.h"
#include "quant/learn/workers.h"

namespace qnpu {

// `graph` is the recipe's. Error: steps that exclude each other, a size without a Hadamard matrix,
// too few sequences for the workers.
void check_recipe(const Recipe& recipe, const Graph& graph, const Workers& workers);

}  // namespace qnpu
