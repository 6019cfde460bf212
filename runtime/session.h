// The integer runtime: an artifact, a plan of all buffers, a KV cache, and a walk over the node
// list. Between token ids and the logits' integers there is no floating point
// (scripts/check-no-float).
//
// Goals: equal to the reference kernels to the bit whatever the instruction set, the number of
// threads and the way a sequence is cut into calls; no allocation while it runs.
// Non-goals: batches of several sequences, fused kernels (kept for later, under the same law).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/isa.h"
#include "model/artifact.h"

namespace qnpu {

struct SessionOptions {
  int context = 0;     // positions of the KV cache, the artifact's prefix included; 0: what the
                       // artifact allows, at most 4096
  int max_rows = 128;  // tokens per walk of the graph; longer calls are cut
  int threads = 0;     // 0: all cores
  Isa isa = best_isa();
};

// One site's integers as the walk produced them, for tests and comparisons. Where only the last
// token's logits are asked for, nodes behind the last cache write have that row alone.
struct SiteValues {
  int site;    // index in graph().sites
  int tokens;  // rows computed, the first of them at `position`
  int position;
  void* data;          // s8 (for s4 too), s16 or u16 by the site's dtype; layout by its role
                       // (graph.h). Caches: the whole cache, position 0 first. Who changes it
                       // changes what later nodes read
  int64_t row_stride;  // kScores and kVCache: the cache's capacity (at least context()); else cols
};

// One sequence. A session belongs to one thread at a time; several may share an artifact.
class Session {
 public:
  // Error: more context than the artifact has positions or no more than its prefix, sizes below 1,
  // a law without a kernel.
  Session(std::shared_ptr<const Artifact> artifact, const SessionOptions& options);
  ~Session();

  const Graph& graph() const;
  int context() const;
  int position() const;       // tokens in the KV cache, those of the prefix included
  int prefix_length() const;  // P: where a new session begins
  int max_rows() const;

  // Appends at most max_rows tokens. Returns the logits' integers: [tokens, vocab] if `all_rows`,
  // else [1, vocab] of the last token; valid until the next call. Real logits are
  // logits_scale() * integer. Error if a token is out of range or the context is full (nothing is
  // changed then).
  std::span<const int16_t> run(std::span<const int32_t> tokens, bool all_rows);
  double logits_scale() const;

  // Any number of tokens, in pieces of max_rows; logits of the last token. Errors as in run().
  std::span<const int16_t> prefill(std::span<const int32_t> tokens);

  void reset();  // as new: the cache holds the prefix alone
  // Forgets the tokens from `position` on. Error if there are fewer, or if they are of the prefix.
  void truncate(int position);

  using Trace = std::function<void(const SiteValues&)>;
  void set_trace(Trace trace);  // called after every node; empty: none

  size_t arena_bytes() const;  // caches, activations and scratch
  size_t cache_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qnpu
