// Can a target compute this graph in integers? Asked before hours of compiling: the NPU's compiler
// does not refuse a node whose activations have several widths, it silently computes it in fp16.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/graph.h"
#include "npu/target.h"

namespace qnpu {

struct Misplacement {
  std::string node;    // empty: the graph as a whole
  std::string site;    // the operand that does not fit
  std::string reason;  // "a linear of 8>16 bits, which would become fp16; SM8750 has ..."
};

// What a graph keeps in memory.
struct GraphMemory {
  int64_t weight_bytes = 0;  // with scales and tables; 4-bit weights two in a byte
  int64_t cache_bytes = 0;   // keys and values of `context` positions
  int64_t total() const { return weight_bytes + cache_bytes; }
};
int64_t weight_bytes(const Site& weight);  // of a linear, as the NPU has it
GraphMemory graph_memory(const Graph& graph, int context);

// Everything that the target cannot place, in the order of the nodes; empty: all of it can be.
// `parts`: graphs into which the layers are cut, each of which has a session's memory to itself.
std::vector<Misplacement> misplaced(const Graph& graph, const Target& target, int context,
                                    int parts = 1);

// One sentence about them: the first few, and how many there are.
std::string placement_sentence(const Target& target, const std::vector<Misplacement>& misplaced);

}  // namespace qnpu
