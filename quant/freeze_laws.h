// Scales to integer laws, node by node (docs/numerics.md). Everything here reads and writes QParams
// and laws only; the weights' integers are made in freeze_linear.
#pragma once

#include "model/graph.h"

namespace qnpu {

// Moves the output scale of every attention product (scores, context), and of what is tied to it,
// to the nearest one whose multiplier M has 12 significant bits, and stores the law of snapped M.
void snap_attention_products(Graph& graph);

// Gives a sum the scale of an input that is within 2^-12 of it; else moves it by some millionths
// where a multiplier of its law is so near a half that the NPU's compiler may round it the other
// way. Error naming the node if its scales do not fit together.
void snap_sums(Graph& graph);

// The laws of all nodes but linears and attention products, from the sites' scales. Error naming
// the node if its scales do not fit together.
void set_laws(Graph& graph);

}  // namespace qnpu
