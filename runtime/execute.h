// The walk over the nodes: one kernel call each. It allocates nothing, throws nothing, locks
// nothing and computes with integers only (scripts/check-no-float looks at the compiled code).
// Threads are the kernels' own (kernels/parallel.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/bind.h"

namespace qnpu {

// Consecutive tokens of one sequence among the rows of a walk.
struct Segment {
  int row = 0;  // of its first token
  int count = 0;
  int position = 0;  // of its first token
  int sequence = 0;
};

// Rows [first, count) of a walk of `count` tokens. A sequence may have two segments, the earlier
// positions first.
struct Step {
  const int32_t* tokens = nullptr;
  int count = 0;
  int first = 0;
  std::span<const Segment> segments;
};

// Runs nodes [begin, end). `first` may be above 0 only from graph.tail on. Attention is one kernel,
// at its kContext node; while a trace is bound (bind_trace) its four nodes run one by one, and the
// step has one segment.
void execute(const BoundGraph& graph, const Step& step, size_t begin, size_t end) noexcept;

}  // namespace qnpu
