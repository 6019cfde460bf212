#include "io/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

#include "base/status.h"
#include "io/unicode.h"

namespace qnpu {

namespace {

using Kind = JinjaToken::Kind;

// Longer signs first.
constexpr std::array<std::string_view, 25> kSigns = {
    "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]",
    "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool begins_name(char c) { return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// Line ends as \n; one at the very end does not count.
std::string with_plain_line_ends(const std::string& source) {
  std::string result;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      result += source[i];
      continue;
    }
    result += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (result.ends_with('\n')) result.pop_back();
  return result;
}

class Lexer {
 public:
  explicit Lexer(const std::string& source) : source_(with_plain_line_ends(source)) {}

  std::vector<JinjaToken> run() {
    while (at_ < source_.size()) {
      const size_t part = next_part();
      add_text(part);
      at_ = part;
      if (at_ < source_.size()) read_part();
    }
    add(Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  bool sees(std::string_view text) const {
    return std::string_view(source_).substr(at_).starts_with(text);
  }

  // Of the place where the lexer stands, which only goes forward.
  int line() {
    line_ += static_cast<int>(std::count(source_.begin() + counted_, source_.begin() + at_, '\n'));
    counted_ = at_;
    return line_;
  }

  void add(Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line()}); }

  size_t next_part() const {
    const std::string_view source = source_;
    return std::min(
        {source.find("{{", at_), source.find("{%", at_), source.find("{#", at_), source.size()});
  }

  // The text up to `part`, where {{, {% or {# stands or the end is.
  void add_text(size_t part) {
    std::string text = source_.substr(at_, part - at_);
    if (part < source_.size()) {
      const char sign = part + 2 < source_.size() ? source_[part + 2] : ' ';
      if (sign == '-') {
        text.resize(without_end_space(text).size());
      } else if (sign != '+' && source_[part + 1] != '{') {
        take_indentation(text);
      }
    }
    if (!text.empty()) add(Kind::kText, std::move(text));
  }

  // White space before a tag that is the first of its line.
  void take_indentation(std::string& text) const {
    const size_t last_line = text.rfind('\n') + 1;
    const bool begins_line = last_line > 0 || at_line_start_;
    if (begins_line && skip(text, last_line, is_python_space) == text.size()) {
      text.resize(last_line);
    }
  }

  void read_part() {
    const char kind = source_[at_ + 1];
    at_ += 2;
    if (kind == '#') return skip_comment();
    if (sees("-") || sees("+")) ++at_;
    add(kind == '{' ? Kind::kPrint : Kind::kTag, "");
    const std::string_view end = kind == '{' ? "}}" : "%}";
    int open = 0;
    while (true) {
      at_ = skip(source_, at_, is_python_space);
      if (at_ >= source_.size())
        fail("line {}: a part is not closed by {}", tokens_.back().line, end);
      if (open == 0 && ends_here(end)) break;
      read_word(open);
    }
    add(kind == '{' ? Kind::kPrintEnd : Kind::kTagEnd, "");
    pass_end(end);
  }

  bool ends_here(std::string_view end) const {
    const std::string_view rest = std::string_view(source_).substr(at_);
    return rest.starts_with(end) || (rest.starts_with('-') && rest.substr(1).starts_with(end)) ||
           (end == "%}" && rest.starts_with("+%}"));
  }

  // "-" takes the white space behind away; else a tag takes the end of its line.
  void pass_end(std::string_view end) {
    const bool strips = sees("-");
    const bool keeps = sees("+");
    at_ += end.size() + (strips || keeps);
    const size_t behind = at_;
    if (strips) at_ = skip(source_, at_, is_python_space);
    if (!strips && !keeps && end != "}}" && sees("\n")) ++at_;
    at_line_start_ = at_ > behind && source_[at_ - 1] == '\n';
  }

  void skip_comment() {
    const size_t end = source_.find("#}", at_);
    if (end == source_.npos) fail("line {}: a comment is not closed by #}}", line());
    const bool signed_end = end > at_ && (source_[end - 1] == '-' || source_[end - 1] == '+');
    at_ = end - signed_end;
    pass_end("#}");
  }

  void read_word(int& open) {
    const char c = source_[at_];
    if (c == '"' || c == '\'') return read_string(c);
    if (is_digit(c)) return read_number();
    if (begins_name(c)) {
      size_t end = at_;
      while (end < source_.size() && (begins_name(source_[end]) || is_digit(source_[end]))) ++end;
      return take(Kind::kName, end - at_);
    }
    const auto* sign = std::ranges::find_if(kSigns, [&](std::string_view s) { return sees(s); });
    if (sign == kSigns.end()) fail("line {}: the sign {} is unknown", line(), c);
    if (*sign == "(" || *sign == "[" || *sign == "{") ++open;
    if (*sign == ")" || *sign == "]" || *sign == "}") --open;
    take(Kind::kSign, sign->size());
  }

  void take(Kind kind, size_t length) {
    add(kind, source_.substr(at_, length));
    at_ += length;
  }

  void read_number() {
    size_t end = at_;
    while (end < source_.size() && is_digit(source_[end])) ++end;
    const bool fraction =
        end + 1 < source_.size() && source_[end] == '.' && is_digit(source_[end + 1]);
    if (fraction) ++end;
    while (fraction && end < source_.size() && is_digit(source_[end])) ++end;
    take(Kind::kNumber, end - at_);
  }

  void read_string(char quote) {
    std::string text;
    size_t i = at_ + 1;
    for (; i < source_.size() && source_[i] != quote; ++i) {
      if (source_[i] == '\\' && i + 1 < source_.size()) {
        i = read_escape(i + 1, text);
      } else {
        text += source_[i];
      }
    }
    if (i >= source_.size()) fail("line {}: a string is not closed", line());
    add(Kind::kString, std::move(text));
    at_ = i + 1;
  }

  // What stands behind a backslash, as in Python. Returns the position of its last character.
  size_t read_escape(size_t at, std::string& text) {
    constexpr std::string_view kLetters = "ntrfvab0\\'\"", kMeanings("\n\t\r\f\v\a\b\0\\'\"", 11);
    const char letter = source_[at];
    if (letter == '\n') return at;
    if (const size_t found = kLetters.find(letter); found != kLetters.npos) {
      text += kMeanings[found];
      return at;
    }
    const size_t digits = letter == 'x' ? 2 : letter == 'u' ? 4 : letter == 'U' ? 8 : 0;
    if (digits == 0) {
      text += {'\\', letter};
      return at;
    }
    const std::string code = source_.substr(at + 1, digits);
    uint32_t number = 0;
    const auto end = std::from_chars(code.data(), code.data() + code.size(), number, 16).ptr;
    const bool surrogate = number >= 0xD800 && number < 0xE000;
    if (code.size() != digits || end != code.data() + digits || surrogate || number > 0x10FFFF) {
      fail("line {}: \\{}{} is no character", line(), letter, code);
    }
    append_utf8(text, static_cast<int32_t>(number));
    return at + digits;
  }

  std::string source_;
  size_t at_ = 0, counted_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;
  std::vector<JinjaToken> tokens_;
};

}  // namespace

std::vector<JinjaToken> read_jinja_tokens(const std::string& source) { return Lexer(source).run(); }

}  // namespace qnpu
