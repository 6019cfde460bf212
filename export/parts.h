// A decoder cut between its layers into parts, for binaries that would be too large in one piece:
// each part is a graph of its own, and the residual stream goes from one to the next as a tensor of
// the graphs, in integers. The first part has the embedding, the last the final norm and the head.
#pragma once

#include <string>

#include "model/artifact.h"

namespace qnpu {

// One of several parts, counted from 0.
struct Part {
  int index = 0;
  int count = 1;
  bool first() const { return index == 0; }
  bool last() const { return index + 1 == count; }
};

// "prefill", or "prefill.part02" of several. The names sort in the order of the parts, in which
// Genie takes them.
std::string part_name(const std::string& graph, Part part);

bool is_in(Part part, const Graph& graph, const Node& node);
// The site of the residual stream that enters a part that is not the first.
int residual_into(Part part, const Graph& graph);

// Of the constants that its graphs need, nearly the size of its context binary.
int64_t part_bytes(const Artifact& artifact, Part part);

// The HTP addresses a binary with 32 bits; some of them go to what the compiler adds.
constexpr int64_t kMostBinaryBytes = int64_t{3} << 30;

// If `part.count` is 0, sets it to the fewest with which every binary is small enough. Error if it
// is more than the model has layers, or than names in order (99).
void choose_parts(const Artifact& artifact, Part& part);

// The fewest with which each binary stays below `most` bytes. Error: not even one layer does.
int parts_needed(const Artifact& artifact, int64_t most = kMostBinaryBytes);

}  // namespace qnpu
