// What a session decides and takes before it runs.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

#include "model/artifact.h"
#include "runtime/session.h"

namespace qnpu {

struct FreeMemory {
  void operator()(std::byte* pointer) const { std::free(pointer); }
};
using Arena = std::unique_ptr<std::byte, FreeMemory>;

// 64-byte aligned. Error if there is too little memory. Large blocks come as untouched pages: what
// a session never uses costs no memory, unless `whole`, which takes all of it now.
Arena allocate_arena(size_t bytes, bool whole = false);

// Positions of the caches, and whether the other options can be met. Error if not.
int choose_context(const Artifact& artifact, const SessionOptions& options);

// Positions that the caches have room for.
int cache_capacity(int context);

}  // namespace qnpu
