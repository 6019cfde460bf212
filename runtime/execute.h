// The walk over the nodes: one kernel call each. It allocates nothing, throws nothing, locks
// nothing and computes with integers only (scripts/check-no-float looks at the compiled code).
// Threads are the kernels' own (kernels/parallel.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/bind.h"

namespace qnpu {

// Rows [first, count) of a call with `count` tokens, whose row 0 is at `position`.
struct Step {
  const int32_t* tokens = nullptr;
  int count = 0;
  int position = 0;
  int first = 0;
};

// Runs nodes [begin, end). `first` may be above 0 only from graph.tail on.
void execute(const BoundGraph& graph, const Step& step, size_t begin, size_t end) noexcept;

}  // namespace qnpu
