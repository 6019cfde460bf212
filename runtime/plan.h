// Where every buffer of a session lies in its one arena, decided at load:
//
//   [ caches of each sequence | activations, overlaid by lifetime | scratch of the kernels ]
//
// An activation lives from the node that writes it to the last node that reads it, both included,
// so no node's output overlaps its inputs. All offsets are multiples of 64 bytes.
//
// The walk does attention as a whole, without scores in memory. Who traces a session wants to see
// them: they, and the scratch of the steps one by one, lie in a second arena, made only then.
#pragma once

#include <cstddef>
#include <vector>

#include "model/graph.h"

namespace qnpu {

struct PlanSize {
  int capacity = 0;  // positions of a cache, and row stride of the scores
  int max_rows = 0;  // tokens per walk
  int sequences = 1;
  bool cache_panels = false;       // layout of the caches (kernels/attention/attention.h)
  size_t scratch_bytes = 0;        // of the walk
  size_t trace_scratch_bytes = 0;  // of attention's steps one by one
};

struct Placement {
  size_t offset = 0;  // in the arena; Role::kScores: in the trace's arena; caches: of sequence 0
  size_t bytes = 0;   // 0: the site has no buffer (weights, tables)
  int first = 0;      // indices of nodes
  int last = 0;
};

struct Plan {
  std::vector<Placement> sites;  // by site index
  size_t cache_bytes = 0;        // of one sequence, and from one sequence's caches to the next's
  size_t scratch_offset = 0;
  size_t arena_bytes = 0;
  size_t trace_scratch_offset = 0;
  size_t trace_bytes = 0;
};

Plan make_plan(const Graph& graph, const PlanSize& size);

// The nodes that make up one layer's attention, as indices of graph.nodes. `context` is that of a
// kContext node; the others are found by who wrote its inputs.
struct AttentionNodes {
  size_t scores, mask, softmax, context;
};
AttentionNodes attention_nodes(const Graph& graph, size_t context);

}  // namespace qnpu
