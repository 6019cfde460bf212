// What becomes of the matches when a text is split by a pattern.
#pragma once

#include <vector>

#include "io/json_part.h"
#include "io/pattern.h"
#include "io/pretokenizer.h"

namespace qnpu {

enum class SplitBehavior {
  kRemoved,
  kIsolated,
  kMergedWithPrevious,
  kMergedWithNext,
  kContiguous,  // neighbouring matches become one piece
};

SplitBehavior split_behavior(const JsonPart& part);  // of its key "behavior"

// Appends the pieces of `piece`; `invert` exchanges matches and what lies between them.
void split_by(const std::vector<Range>& matches, SplitBehavior behavior, bool invert,
              const TextPiece& piece, TextPieces& out);

}  // namespace qnpu
