// Pieces of several sequences as the rows of one walk.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/execute.h"

namespace qnpu {

// New tokens of one sequence, and whose logits are asked for: the last one's, or those of all.
struct Piece {
  int sequence = 0;
  std::span<const int32_t> tokens;
  bool all_rows = false;

  size_t rows() const { return all_rows ? tokens.size() : 1; }
};

class Batch {
 public:
  Batch(int max_rows, int sequences) : tokens_(static_cast<size_t>(max_rows)) {
    segments_.reserve(2 * static_cast<size_t>(sequences));
  }

  // The tokens whose logits are asked for come last, in the order of the pieces and from row
  // `first` on, so that the tail of the graph can be walked with them alone. `positions`: of each
  // sequence. Valid until the next call; allocates nothing. At most max_rows tokens, every sequence
  // at most once.
  Step order(std::span<const Piece> pieces, std::span<const int> positions);

 private:
  void add(const Piece& piece, size_t begin, size_t end, int position);

  std::vector<int32_t> tokens_;
  std::vector<Segment> segments_;
  int rows_ = 0;
};

}  // namespace qnpu
