// Integer operations for one new token, by the widths that they have: what a chip's 4, 8 and 16-bit
// units will be asked for.
#pragma once

#include <string>
#include <vector>

#include "model/graph.h"

namespace qnpu {

struct OperationCount {
  std::string kind;   // "linears", "head", "attention" or "elementwise"
  int left = 0;       // bits of the activations
  int right = 0;      // bits of weights or cache; 0 of elementwise operations
  double number = 0;  // products, or results of elementwise operations
};

// One token behind `context` positions, by kind and widths, the widest last.
std::vector<OperationCount> count_operations(const Graph& graph, int context);

}  // namespace qnpu
