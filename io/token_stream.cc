#include "io/token_stream.h"

#include <algorithm>

#include "io/unicode.h"

namespace qnpu {

size_t incomplete_tail(std::string_view text) {
  for (size_t length = 1; length <= std::min<size_t>(3, text.size()); ++length) {
    const auto byte = static_cast<unsigned char>(text[text.size() - length]);
    if ((byte & 0xc0) == 0x80) continue;  // goes on with what an earlier byte began
    const size_t needed = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    return needed > length ? length : 0;
  }
  return 0;
}

std::string token_bytes(const Tokenizer& tokenizer, int before, int token) {
  if (!tokenizer.has_token(token)) return "";
  if (!tokenizer.has_token(before)) return tokenizer.decode({token});
  return tokenizer.decode({before, token}).substr(tokenizer.decode({before}).size());
}

std::string TokenStream::show(size_t bytes) {
  std::string text = replace_invalid_utf8(std::string_view(pending_).substr(0, bytes));
  pending_.erase(0, bytes);
  shown_ += text;
  return text;
}

std::string TokenStream::add(int token) {
  if (!tokenizer_.is_special(token)) pending_ += token_bytes(tokenizer_, last_, token);
  last_ = token;
  return show(pending_.size() - incomplete_tail(pending_));
}

std::string TokenStream::finish() { return show(pending_.size()); }

}  // namespace qnpu
