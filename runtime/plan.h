// Where every buffer of a session lies in its one arena, decided at load:
//
//   [ caches | activations, overlaid by lifetime | scratch of the kernels ]
//
// An activation lives from the node that writes it to the last node that reads it, both included,
// so no node's output overlaps its inputs. All offsets are multiples of 64 bytes.
#pragma once

#include <cstddef>
#include <vector>

#include "model/graph.h"

namespace qnpu {

struct Placement {
  size_t offset = 0;
  size_t bytes = 0;  // 0: the site has no buffer (weights, tables)
  int first = 0;     // indices of nodes
  int last = 0;
};

struct Plan {
  std::vector<Placement> sites;  // by site index
  size_t cache_bytes = 0;
  size_t scratch_offset = 0;
  size_t scratch_bytes = 0;
  size_t arena_bytes = 0;
};

// `capacity`: positions of the caches and row stride of the scores. `max_rows`: tokens per walk.
Plan make_plan(const Graph& graph, int capacity, int max_rows, size_t scratch_bytes);

}  // namespace qnpu
