#include "quant/learn/sequences.h"

#include <utility>

#include "base/status.h"

namespace qnpu {

Sequences::Sequences(const std::vector<Window>& windows, int length, uint64_t seed)
    : random_(seed) {
  for (const Window& window : windows) {
    for (size_t begin = 0; begin + length <= window.size(); begin += length) {
      all_.emplace_back(window.begin() + begin, window.begin() + begin + length);
    }
  }
  if (all_.empty()) {
    fail("the learning text has no window of {} tokens: give a longer text, or lower 'length'",
         length);
  }
}

torch::Tensor Sequences::next(int64_t count) {
  std::vector<torch::Tensor> rows;
  for (int64_t i = 0; i < count; ++i) rows.push_back(torch::tensor(all_[draw()], torch::kInt64));
  return torch::stack(rows);
}

void Sequences::skip(int64_t count) {
  for (int64_t i = 0; i < count; ++i) draw();
}

// Fisher and Yates's shuffle whenever a round is over.
size_t Sequences::draw() {
  if (left_.empty()) {
    for (size_t i = 0; i < all_.size(); ++i) left_.push_back(i);
    for (size_t i = left_.size() - 1; i > 0; --i) std::swap(left_[i], left_[random_.below(i + 1)]);
  }
  const size_t drawn = left_.back();
  left_.pop_back();
  return drawn;
}

}  // namespace qnpu
