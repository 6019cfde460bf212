// What the parts of a tokenizer search for: a literal string or a regular expression.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/json_part.h"

namespace qnpu {

struct Range {
  size_t begin = 0, end = 0;
};

// A regular expression over UTF-8 text, in the dialect of tokenizer files (Oniguruma's): \s, \p{..}
// and case folding follow Unicode, ^ and $ match at every line.
class Regex {
 public:
  explicit Regex(const std::string& expression);  // Error: not valid
  // Matches from left to right without overlap; `valid_utf8` is not checked again.
  void find_all(std::string_view valid_utf8, std::vector<Range>& matches) const;

 private:
  std::shared_ptr<void> code_;  // a pcre2_code
};

// {"String": "..."} or {"Regex": "..."}
class Pattern {
 public:
  explicit Pattern(const JsonPart& part);
  explicit Pattern(std::string literal) : literal_(std::move(literal)) {}
  void find_all(std::string_view valid_utf8, std::vector<Range>& matches) const;
  std::string replace_all(std::string_view valid_utf8, std::string_view content) const;

 private:
  std::string literal_;
  std::shared_ptr<Regex> regex_;  // null: literal
};

}  // namespace qnpu
