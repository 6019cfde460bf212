#include "io/split_behavior.h"

#include <algorithm>
#include <map>

#include "base/status.h"

namespace qnpu {

namespace {

struct Part {
  size_t begin, end;
  bool match;
};

// Matches and what lies between them: together they cover the text.
std::vector<Part> cover(const std::vector<Range>& matches, bool invert, size_t size) {
  std::vector<Part> parts;
  parts.reserve(matches.size() * 2 + 1);
  size_t done = 0;
  for (const Range& match : matches) {
    if (match.begin > done) parts.push_back({done, match.begin, invert});
    parts.push_back({match.begin, match.end, !invert});
    done = match.end;
  }
  if (done < size) parts.push_back({done, size, invert});
  return parts;
}

// Joins each part with the one before it where `joins(part, before.match)` says so.
template <typename Joins>
std::vector<Part> join(const std::vector<Part>& parts, Joins joins) {
  std::vector<Part> joined;
  bool previous = false;
  for (const Part& part : parts) {
    if (!joined.empty() && joins(part.match, previous)) {
      joined.back() = {std::min(joined.back().begin, part.begin),
                       std::max(joined.back().end, part.end), false};
    } else {
      joined.push_back(part);
    }
    previous = part.match;
  }
  return joined;
}

std::vector<Part> joined(std::vector<Part> parts, SplitBehavior behavior) {
  // Of several matches in a row only the first is merged with its neighbour.
  const auto first_match = [](bool match, bool previous) { return match && !previous; };
  if (behavior == SplitBehavior::kContiguous) {
    return join(parts, [](bool match, bool previous) { return match == previous; });
  }
  if (behavior == SplitBehavior::kMergedWithPrevious) return join(parts, first_match);
  if (behavior == SplitBehavior::kMergedWithNext) {
    std::reverse(parts.begin(), parts.end());
    parts = join(parts, first_match);
    std::reverse(parts.begin(), parts.end());
  }
  return parts;
}

}  // namespace

SplitBehavior split_behavior(const JsonPart& part) {
  static const std::map<std::string, SplitBehavior> behaviors = {
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous}};
  const auto found = behaviors.find(part.text("behavior"));
  if (found == behaviors.end()) {
    part.fail_here(fmt::format("the behavior {} is unknown", part.text("behavior")));
  }
  return found->second;
}

void split_by(const std::vector<Range>& matches, SplitBehavior behavior, bool invert,
              const TextPiece& piece, TextPieces& out) {
  for (const Part& part : joined(cover(matches, invert, piece.text.size()), behavior)) {
    if (behavior == SplitBehavior::kRemoved && part.match) continue;
    out.add(piece.text.substr(part.begin, part.end - part.begin),
            piece.at_start && part.begin == 0);
  }
}

}  // namespace qnpu
