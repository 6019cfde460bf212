#include "runtime/speculate.h"

#include <algorithm>

namespace qnpu {
namespace {

constexpr size_t kLongest = 4;
constexpr size_t kShortest = 2;

}  // namespace

std::span<const int32_t> propose(std::span<const int32_t> history, int count) {
  if (count <= 0) return {};
  for (size_t n = kLongest; n >= kShortest; --n) {
    if (history.size() <= n) continue;
    const auto key = history.last(n);
    // From the back; the last occurrence is the key itself.
    for (size_t end = history.size() - 1; end >= n; --end) {
      if (!std::ranges::equal(history.subspan(end - n, n), key)) continue;
      return history.subspan(end, std::min(static_cast<size_t>(count), history.size() - end));
    }
  }
  return {};
}

}  // namespace qnpu
