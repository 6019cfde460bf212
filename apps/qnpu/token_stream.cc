#include "apps/qnpu/token_stream.h"

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

TokenStream::TokenStream(const Tokenizer& tokenizer, int last_of_prompt)
    : tokenizer_(tokenizer), tokens_{last_of_prompt} {
  prompt_bytes_ = tokenizer_.decode(tokens_, /*skip_special_tokens=*/true).size();
  decoded_bytes_ = prompt_bytes_;
}

std::string TokenStream::show(std::string_view bytes) {
  decoded_bytes_ += bytes.size();
  std::string text = replace_invalid_utf8(bytes);
  shown_ += text;
  return text;
}

std::string TokenStream::add(int token) {
  tokens_.push_back(token);
  const std::string decoded = tokenizer_.decode(tokens_, /*skip_special_tokens=*/true);
  if (decoded.size() <= decoded_bytes_) return "";
  const std::string_view fresh = std::string_view(decoded).substr(decoded_bytes_);
  return show(fresh.substr(0, fresh.size() - incomplete_tail(fresh)));
}

std::string TokenStream::finish() {
  const std::string decoded = tokenizer_.decode(tokens_, /*skip_special_tokens=*/true);
  if (decoded.size() <= decoded_bytes_) return "";
  return show(std::string_view(decoded).substr(decoded_bytes_));
}

}  // namespace qnpu
