// Generated tokens as text for a reader: a character is shown once all its bytes are there.
#pragma once

#include <string>
#include <string_view>

#include "io/tokenizer.h"

namespace qnpu {

// The bytes that `token` adds to a text whose last token is `before` (-1: none): some tokenizers
// decode a token by whether anything stands before it. Special tokens are written out. Nothing for
// an id without a token, with which a model's vocabulary may be padded.
std::string token_bytes(const Tokenizer& tokenizer, int before, int token);

class TokenStream {
 public:
  // `last_of_prompt`: -1 if nothing stands before.
  TokenStream(const Tokenizer& tokenizer, int last_of_prompt)
      : tokenizer_(tokenizer), last_(last_of_prompt) {}

  // What can be shown now that could not be before; special tokens show nothing. The time does not
  // grow with the text.
  std::string add(int token);
  std::string finish();  // the rest; an incomplete character becomes U+FFFD
  const std::string& text() const { return shown_; }  // all that was shown, valid UTF-8

 private:
  std::string show(size_t bytes);

  const Tokenizer& tokenizer_;
  int last_;
  std::string pending_;  // bytes that were not shown yet
  std::string shown_;
};

// Bytes at the end of `text` that begin a UTF-8 character but do not complete it.
size_t incomplete_tail(std::string_view text);

}  // namespace qnpu
