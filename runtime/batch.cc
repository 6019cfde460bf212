#include "runtime/batch.h"

#include <algorithm>

namespace qnpu {

// Tokens [begin, end) of a piece whose first one stands at `position`.
void Batch::add(const Piece& piece, size_t begin, size_t end, int position) {
  if (begin == end) return;
  const std::span<const int32_t> part = piece.tokens.subspan(begin, end - begin);
  const int count = static_cast<int>(part.size());
  segments_.push_back({rows_, count, position + static_cast<int>(begin), piece.sequence});
  std::copy(part.begin(), part.end(), tokens_.begin() + rows_);
  rows_ += count;
}

Step Batch::order(std::span<const Piece> pieces, std::span<const int> positions) {
  segments_.clear();
  rows_ = 0;
  const auto position = [&](const Piece& p) { return positions[static_cast<size_t>(p.sequence)]; };
  const auto silent = [](const Piece& p) { return p.tokens.size() - p.rows(); };
  for (const Piece& p : pieces) add(p, 0, silent(p), position(p));
  const int first = rows_;
  for (const Piece& p : pieces) add(p, silent(p), p.tokens.size(), position(p));
  return {tokens_.data(), rows_, first, segments_};
}

}  // namespace qnpu
