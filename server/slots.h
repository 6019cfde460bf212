// Which KV cache a new prompt gets: the one that holds most of its beginning already.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qnpu::server {

struct Slot {
  std::vector<int32_t> cached;  // tokens in the KV cache, behind the artifact's prefix
  bool busy = false;
  uint64_t used = 0;  // when it was last given out
};

// The tokens of `slot` from position 0 to `tokens` are to come from `source`, which may be itself.
struct Placement {
  int slot = -1;  // -1: all are busy
  int source = -1;
  int tokens = 0;
};

// A common beginning is copied from a busy slot, or from a free one whose longer text is worth
// keeping; else the slot itself is cut back. Without anything in common, the slot that has been
// free for longest. Never all of the prompt: its last token has to be run for its logits.
Placement place(std::span<const Slot> slots, std::span<const int32_t> prompt);

}  // namespace qnpu::server
