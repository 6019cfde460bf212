#include "apps/qnpu/windows.h"

#include <xxhash.h>

#include <algorithm>

#include "base/status.h"
#include "io/files.h"
#include "model/tokens.h"

namespace qnpu {
namespace {

// Decoded with its first token, and that taken off again: a tokenizer may drop a leading space.
int64_t bytes_after_first(const Tokenizer& tokenizer, const std::vector<int>& window) {
  return static_cast<int64_t>(tokenizer.decode(window).size() -
                              tokenizer.decode({window.front()}).size());
}

}  // namespace

Windows text_windows(const Tokenizer& tokenizer, const std::filesystem::path& text, int length,
                     int limit) {
  const std::string content = read_text(text);
  const std::vector<int> tokens = token_sequence(tokenizer, content);
  Windows windows;
  windows.length = length;
  windows.count = static_cast<int>(tokens.size() / length);
  if (windows.count == 0) {
    fail("{} has {} tokens, fewer than one window of {}; give a longer text or a smaller --length",
         text.string(), tokens.size(), length);
  }
  if (limit > 0) windows.count = std::min(windows.count, limit);
  windows.tokens.assign(tokens.begin(), tokens.begin() + int64_t{windows.count} * length);
  for (auto begin = tokens.begin(); begin != tokens.begin() + int64_t{windows.count} * length;
       begin += length) {
    windows.scored_bytes += bytes_after_first(tokenizer, {begin, begin + length});
  }
  windows.text_hash = fmt::format("{:016x}", XXH3_64bits(content.data(), content.size()));
  return windows;
}

}  // namespace qnpu
