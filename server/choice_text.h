// The tokens of one choice as text for a client: what is echoed of the prompt, then what was
// generated up to the first of the stop texts. Text that may be the beginning of a stop text is
// held back until it is known.
#pragma once

#include <string>
#include <vector>

#include "io/token_stream.h"
#include "server/channel.h"

namespace qnpu::server {

struct TextToken {
  TokenOutput output;
  int before = -1;    // the token in front of it
  std::string bytes;  // special tokens written out
  int offset = 0;     // characters of the choice's text before it
};

struct TextPart {
  std::string text = "";               // valid UTF-8
  std::vector<TextToken> tokens = {};  // those that begin in it; bytes of a last one may come later
};

class ChoiceText {
 public:
  // `last_of_prompt`: the token before the first one added, -1 if there is none. `stops`: none of
  // them empty.
  ChoiceText(const Tokenizer& tokenizer, int last_of_prompt, std::vector<std::string> stops)
      : tokenizer_(tokenizer),
        stream_(tokenizer, last_of_prompt),
        before_(last_of_prompt),
        stops_(std::move(stops)) {}

  TextPart add(const TokenOutput& output);  // nothing once the choice is stopped
  TextPart finish();                        // what was held back
  bool is_stopped() const { return stopped_; }

 private:
  TextPart release_before_stop(bool all);
  TextPart release(size_t end);
  size_t find_stop() const;
  size_t possible_stop() const;

  const Tokenizer& tokenizer_;
  TokenStream stream_;
  int before_;
  std::vector<std::string> stops_;
  std::string held_;
  std::vector<TextToken> tokens_;  // held back, with offsets into `held_`, in bytes
  int characters_ = 0;             // released
  bool stopped_ = false;
};

}  // namespace qnpu::server
