// Generated tokens as text for a reader: a character is shown once all its bytes are there.
#pragma once

#include <string>
#include <vector>

#include "io/tokenizer.h"

namespace qnpu {

class TokenStream {
 public:
  // `last_of_prompt`: some tokenizers decode a token by what stands before it.
  TokenStream(const Tokenizer& tokenizer, int last_of_prompt);

  std::string add(int token);  // what can be shown now that could not be before
  std::string finish();        // the rest; an incomplete character becomes U+FFFD
  const std::string& text() const { return shown_; }  // all that was shown, valid UTF-8

 private:
  std::string show(std::string_view bytes);

  const Tokenizer& tokenizer_;
  std::vector<int> tokens_;   // with the prompt's last
  size_t prompt_bytes_ = 0;   // of the decoded text that belong to the prompt
  size_t decoded_bytes_ = 0;  // of the decoded text that were shown
  std::string shown_;
};

// Bytes at the end of `text` that begin a UTF-8 character but do not complete it.
size_t incomplete_tail(std::string_view text);

}  // namespace qnpu
