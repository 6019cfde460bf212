// What is done to whole caches outside the walk.
#pragma once

#include "model/artifact.h"
#include "runtime/bind.h"

namespace qnpu {

// The rows of the artifact's prefix, into the first positions of a sequence's caches. Once: later
// rows come behind these, so no walk overwrites them.
void write_prefix(const Artifact& artifact, const BoundGraph& bound, int sequence);

// The first `positions` of sequence `from` into those of sequence `to`.
void copy_caches(const BoundGraph& bound, int from, int to, int positions);

// Puts the first `positions` of the one sequence's caches into the other layout, and has the walk
// go on with that. The plan must have room for panels.
void set_cache_layout(BoundGraph& bound, bool panels, int positions);

}  // namespace qnpu
