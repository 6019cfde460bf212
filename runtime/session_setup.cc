#include "runtime/session_setup.h"

#include <algorithm>
#include <cstring>

#include "base/status.h"
#include "kernels/matmul/matmul.h"

namespace qnpu {
namespace {

constexpr int kDefaultContext = 4096;
// A row of probabilities is an operand of the matmul.
constexpr int kMaxContext = kMaxMatmulK;

}  // namespace

Arena allocate_arena(size_t bytes, bool whole) {
  Arena arena(static_cast<std::byte*>(std::aligned_alloc(64, bytes)));
  if (!arena) {
    fail("no memory for the session's {} MB: ask for a smaller context, or fewer sequences",
         bytes >> 20);
  }
  if (whole) std::memset(arena.get(), 0, bytes);
  return arena;
}

int choose_context(const Artifact& artifact, const SessionOptions& options) {
  check_deployable(artifact);
  if (options.max_rows < 1) fail("walks of {} tokens: it must be at least 1", options.max_rows);
  if (options.threads < 0) fail("{} threads: give 0 (all cores) or more", options.threads);
  if (options.sequences < 1) fail("{} sequences: it must be at least 1", options.sequences);
  const int prefix = artifact.graph.prefix_length();
  int wished = options.context;
  if (wished == 0) wished = std::min(artifact.positions, kDefaultContext);
  if (wished < 0) fail("a context of {} positions: it must be at least 1", wished);
  if (wished > artifact.positions) {
    fail("a context of {} positions, but {} was made for {}: ask for fewer", wished,
         artifact.folder.string(), artifact.positions);
  }
  if (wished > kMaxContext) {
    fail("a context of {} positions, but at most {} can be computed: ask for fewer", wished,
         kMaxContext);
  }
  if (wished <= prefix) {
    fail("a context of {} positions, but the prefix of {} takes {} of them: ask for more", wished,
         artifact.folder.string(), prefix);
  }
  return wished;
}

// Multiples of 1 KB would fall into the same cache sets: rows of the value cache are that long.
int cache_capacity(int context) {
  const int capacity = (context + 63) / 64 * 64;
  return capacity % 1024 == 0 ? capacity + 64 : capacity;
}

}  // namespace qnpu
