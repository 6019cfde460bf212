#include "quant/learn/sequences.h"

#include <utility>

#include "base/status.h"

namespace qnpu {

Sequences::Sequences(const std::vector<Window>& texts, int length, uint64_t seed) : random_(seed) {
  for (const Window& tokens : texts) {
    Text text;
    for (size_t begin = 0; begin + length <= tokens.size(); begin += length) {
      text.all.emplace_back(tokens.begin() + begin, tokens.begin() + begin + length);
    }
    if (!text.all.empty()) texts_.push_back(std::move(text));
  }
  if (texts_.empty()) {
    fail("the learning text has no window of {} tokens: give a longer text, or lower 'length'",
         length);
  }
}

torch::Tensor Sequences::next(int64_t count) {
  std::vector<torch::Tensor> rows;
  for (int64_t i = 0; i < count; ++i) rows.push_back(torch::tensor(draw(), torch::kInt64));
  return torch::stack(rows);
}

void Sequences::skip(int64_t count) {
  for (int64_t i = 0; i < count; ++i) draw();
}

// Fisher and Yates's shuffle whenever a text's round is over.
const Sequences::Sequence& Sequences::draw() {
  Text& text = texts_[turn_++ % texts_.size()];
  std::vector<size_t>& left = text.left;
  if (left.empty()) {
    for (size_t i = 0; i < text.all.size(); ++i) left.push_back(i);
    for (size_t i = left.size() - 1; i > 0; --i) std::swap(left[i], left[random_.below(i + 1)]);
  }
  const size_t drawn = left.back();
  left.pop_back();
  return text.all[drawn];
}

}  // namespace qnpu
