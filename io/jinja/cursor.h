// Where a reader of a template stands in its tokens, and what it may ask of the next ones.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/jinja/lexer.h"

namespace qnpu {

class JinjaCursor {
 public:
  using Kind = JinjaToken::Kind;

  // Error as of read_jinja_tokens, or if the template is longer than any real one.
  explicit JinjaCursor(const std::string& source);

  const JinjaToken& now() const { return tokens_[at_]; }
  JinjaToken take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }

  bool is(Kind kind, std::string_view text) const { return matches(at_, kind, text); }
  bool is_sign(std::string_view text) const { return is(Kind::kSign, text); }
  bool is_name(std::string_view text) const { return is(Kind::kName, text); }
  // Of the token behind the next one.
  bool next_is(Kind kind, std::string_view text) const { return matches(at_ + 1, kind, text); }

  // Whether it was there; then it is taken.
  bool takes(Kind kind, std::string_view text);
  bool takes_sign(std::string_view text) { return takes(Kind::kSign, text); }
  bool takes_name(std::string_view text) { return takes(Kind::kName, text); }

  // Error naming the line if it is not there.
  void expect(Kind kind);
  void expect_sign(std::string_view text);
  void expect_name(std::string_view text);
  std::string expect_any_name();

  std::string described() const;  // the next token, for errors
  [[noreturn]] void fail_at(const std::string& what) const;

 private:
  friend class JinjaDepth;

  bool matches(size_t at, Kind kind, std::string_view text) const {
    return at < tokens_.size() && tokens_[at].kind == kind && tokens_[at].text == text;
  }

  std::vector<JinjaToken> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
};

// Counts how deep the reader is in parts within parts, while it lives.
class JinjaDepth {
 public:
  explicit JinjaDepth(JinjaCursor& cursor);
  ~JinjaDepth() { --cursor_.depth_; }
  JinjaDepth(const JinjaDepth&) = delete;
  JinjaDepth& operator=(const JinjaDepth&) = delete;

 private:
  JinjaCursor& cursor_;
};

}  // namespace qnpu
