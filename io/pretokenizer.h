// The `pre_tokenizer` of a tokenizer.json: splits text into the words that BPE then sees alone.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/json_part.h"

namespace qnpu {

struct TextPiece {
  std::string_view text;
  bool at_start = false;  // it begins where the whole input does
};

// TextPieces of a text, and the storage of those that were rewritten.
struct TextPieces {
  std::vector<TextPiece> list;
  std::deque<std::string> storage;
  void add(std::string_view text, bool at_start) {
    if (!text.empty()) list.push_back({text, at_start});
  }
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Appends the parts of `piece` to `out`.
  virtual void split(const TextPiece& piece, TextPieces& out) const = 0;
};

struct PreTokenizers {
  std::vector<std::unique_ptr<PreTokenizer>> steps;
  // The words are bytes that the model knows in the byte alphabet. Left as bytes here: the model
  // maps only those words that it has not seen before.
  bool byte_level = false;

  void split(TextPiece piece, TextPieces& out) const;
};

// Error: an unknown kind; ByteLevel before another step.
PreTokenizers make_pretokenizers(const JsonPart& part);

}  // namespace qnpu
