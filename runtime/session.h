// The integer runtime: an artifact, a plan of all buffers, a KV cache, and a walk over the node
// list. Between token ids and the logits' integers there is no floating point
// (scripts/check-no-float).
//
// Goals: equal to the reference kernels to the bit whatever the instruction set, the number of
// threads, the way a sequence is cut into calls and what other sequences run beside it; no
// allocation while it runs; memory for attention that grows with the context and not its square.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/isa.h"
#include "model/artifact.h"
#include "runtime/batch.h"

namespace qnpu {

struct SessionOptions {
  int context = 0;     // positions of the KV cache, the artifact's prefix included; 0: what the
                       // artifact allows, at most 4096
  int max_rows = 128;  // tokens per walk of the graph; longer calls are cut
  int threads = 0;     // 0: all cores
  int sequences = 1;   // each with a KV cache of its own
  // All memory at once, so that it does not grow later; else that of the KV caches comes as they
  // fill.
  bool whole_memory = false;
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

// A session belongs to one thread at a time; several may share an artifact. Where a sequence is not
// named it is the first, 0.
class Session {
 public:
  // Error: more context than the artifact has positions or no more than its prefix, sizes below 1,
  // a law without a kernel, too little memory.
  Session(std::shared_ptr<const Artifact> artifact, const SessionOptions& options);
  // Of the same artifact as `other`, whose weights, laid out for the processor, it shares: else
  // each session lays them out for itself. `other` may be in use meanwhile, and may go first.
  Session(const Session& other, const SessionOptions& options);
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  const Graph& graph() const;
  int context() const;
  int sequences() const;
  int position(int sequence = 0) const;  // tokens in the KV cache, those of the prefix included
  int prefix_length() const;             // P: where a new sequence begins
  int max_rows() const;
  int threads() const;

  // Appends at most max_rows tokens. Returns the logits' integers: [tokens, vocab] if `all_rows`,
  // else [1, vocab] of the last token; valid until the next call. Real logits are
  // logits_scale() * integer. Error if a token is out of range or the context is full (nothing is
  // changed then).
  std::span<const int16_t> run(std::span<const int32_t> tokens, bool all_rows);
  double logits_scale() const;

  // Any number of tokens, in pieces of max_rows; logits of the last token. Errors as in run().
  std::span<const int16_t> prefill(std::span<const int32_t> tokens);

  // Pieces of different sequences in one walk, at most max_rows tokens together: weights are read
  // once for all. Returns the logits of each piece's last token, or of all its tokens if it asks
  // for them: [sum of rows(), vocab], piece by piece. Errors as in run(), or if a sequence is named
  // twice, or if the session is traced.
  std::span<const int16_t> run_batch(std::span<const Piece> pieces);

  void reset(int sequence = 0);  // as new: the cache holds the prefix alone
  // Forgets the tokens from `position` on. Error if there are fewer, or if they are of the prefix.
  void truncate(int position, int sequence = 0);
  // Sequence `to` becomes what `from` is up to `position`: a common beginning is computed once.
  // Error if `from` is shorter, or the prefix longer.
  void copy(int from, int to, int position);

  using Trace = std::function<void(const SiteValues&)>;
  // Called after every node of run() and prefill(); empty: none. Attention is then done step by
  // step, with the scores in memory. Error if there is too little for them, or several sequences.
  void set_trace(Trace trace);

  // Called after every node of any walk, whose work it leaves as it is: for telling the time.
  using Watch = std::function<void(const Node&)>;
  void set_watch(Watch watch);

  size_t arena_bytes() const;  // caches, activations and scratch
  size_t cache_bytes() const;  // of all sequences

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qnpu
