// Whether the parts of a stored graph fit together, so that its readers need not look again.
#pragma once

#include <string>

#include "model/graph.h"

namespace qnpu {

// How many sites an operation reads, and whether it has a constant one. Error names the node.
void check_arity(const Graph& graph, const Node& node);

// Sizes, roles and number types of every site and node, scales of all but weights (which have
// theirs in tensors), ties that end. Indices are in range (graph_from_json). Error begins with
// `file` and names the site or node.
void check_graph(const Graph& graph, const std::string& file);

}  // namespace qnpu
