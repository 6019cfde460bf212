#include "server/slots.h"

#include <algorithm>

namespace qnpu::server {
namespace {

// Fewer tokens are not worth a copy.
constexpr int kLeastCopied = 16;

int common_beginning(std::span<const int32_t> a, std::span<const int32_t> b) {
  return static_cast<int>(std::ranges::mismatch(a, b).in1 - a.begin());
}

int least_recently_used(std::span<const Slot> slots) {
  int best = -1;
  for (size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].busy) continue;
    if (best < 0 || slots[i].used < slots[static_cast<size_t>(best)].used) {
      best = static_cast<int>(i);
    }
  }
  return best;
}

}  // namespace

Placement place(std::span<const Slot> slots, std::span<const int32_t> prompt) {
  const int oldest = least_recently_used(slots);
  if (oldest < 0) return {};
  const auto reusable = prompt.first(prompt.size() - 1);
  const auto common = [&](int slot) {
    return common_beginning(slots[static_cast<size_t>(slot)].cached, reusable);
  };
  int source = oldest;
  for (int i = 0; i < static_cast<int>(slots.size()); ++i) {
    if (common(i) > common(source)) source = i;
  }
  const int tokens = common(source);
  if (tokens < kLeastCopied) return {oldest, oldest, common(oldest)};
  // A text that the prompt goes on with, or nearly so, needs no second copy.
  const Slot& found = slots[static_cast<size_t>(source)];
  const bool goes_on = static_cast<int>(found.cached.size()) - tokens < kLeastCopied;
  return {!found.busy && goes_on ? source : oldest, source, tokens};
}

}  // namespace qnpu::server
