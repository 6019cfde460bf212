// The text of an evaluation, cut into windows of tokens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "io/tokenizer.h"

namespace qnpu {

// Consecutive windows without overlap; what is left at the end is dropped. The first token of a
// window is only a condition: every other one is predicted from those before it in the window.
struct Windows {
  int length = 0;
  int count = 0;
  std::vector<int32_t> tokens;  // [count, length]
  int64_t scored_bytes = 0;     // of the text that the predicted tokens stand for
  std::string text_hash;        // xxh3 of the whole text, in hexadecimal

  // What a model is fed: the last token's successor is not known.
  std::span<const int32_t> inputs(int window) const {
    return std::span(tokens).subspan(static_cast<size_t>(window) * length, length - 1);
  }
  std::span<const int32_t> targets(int window) const {
    return std::span(tokens).subspan(static_cast<size_t>(window) * length + 1, length - 1);
  }
};

// At most `limit` windows (0: all). Error: the text is shorter than one.
Windows text_windows(const Tokenizer& tokenizer, const std::filesystem::path& text, int length,
                     int limit);

}  // namespace qnpu
