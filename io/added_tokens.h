// The `added_tokens` of a tokenizer.json: tokens that are found in the text itself, before anything
// else happens to it.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "io/bpe.h"
#include "io/json_part.h"
#include "io/normalizer.h"

namespace qnpu {

struct AddedToken {
  std::string content;
  int id = -1;
  bool special = false;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // ... and after it
  bool normalized = false;   // looked for in normalized text
};

// Finds tokens in a text: leftmost, then longest.
class TokenFinder {
 public:
  void add(std::string_view pattern, const AddedToken* token);

  // Calls `plain(text, at)` for each stretch between tokens and `found(token)` for each token, in
  // order; `at` is the position of the stretch.
  void cut(std::string_view text, const std::function<void(std::string_view, size_t)>& plain,
           const std::function<void(const AddedToken&)>& found) const;

 private:
  struct Node {
    std::map<char, int> next;
    const AddedToken* token = nullptr;
  };
  const AddedToken* longest_at(std::string_view text, size_t position, size_t& length) const;
  std::vector<Node> nodes_{1};
  bool begins_[256] = {};  // bytes that begin a token
};

class AddedTokens {
 public:
  AddedTokens() = default;
  // `part` holds the key "added_tokens", or not. `normalizer` may be empty.
  AddedTokens(const JsonPart& part, const Vocabulary& vocabulary, const Normalizer& normalizer);
  AddedTokens(const AddedTokens&) = delete;  // the finders point into the map
  AddedTokens& operator=(const AddedTokens&) = delete;

  const std::map<int, AddedToken>& by_id() const { return by_id_; }
  const TokenFinder& in_raw_text() const { return raw_; }
  const TokenFinder& in_normalized_text() const { return normalized_; }

 private:
  std::map<int, AddedToken> by_id_;
  TokenFinder raw_, normalized_;
};

}  // namespace qnpu
