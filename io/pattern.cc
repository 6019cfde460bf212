#include "io/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <iterator>

#include "base/status.h"
#include "io/unicode.h"

namespace qnpu {

namespace {

// Working memory of a match. One per thread, so that matching takes no lock and allocates nothing.
struct Scratch {
  pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(64 << 10, 64 << 20, nullptr);
  Scratch() { pcre2_jit_stack_assign(context, nullptr, stack); }
  ~Scratch() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(match);
  }
};

Scratch& scratch() {
  thread_local Scratch instance;
  return instance;
}

std::string message_of(int error) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(error, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

// Where PCRE2's classes differ from Oniguruma's they are spelled out as the inside of brackets:
// PCRE2 counts U+180E as white space (Unicode does not since 6.3) and, before version 10.43, no
// marks as word characters.
struct Class {
  char letter;
  const char* members;
};
constexpr Class kClasses[] = {
    {'s', R"(\x09-\x0D\x20\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F})"
          R"(\x{3000})"},
    {'S', R"(\x00-\x08\x0E-\x1F\x21-\x{84}\x{86}-\x{9F}\x{A1}-\x{167F}\x{1681}-\x{1FFF})"
          R"(\x{200B}-\x{2027}\x{202A}-\x{202E}\x{2030}-\x{205E}\x{2060}-\x{2FFF}\x{3001}-)"
          R"(\x{10FFFF})"},
    {'w', R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})"},
};

// Outside brackets, and only there, Oniguruma counts superscripts and fractions of Latin-1 to \w.
constexpr const char* kNumbersAsWords = R"(\xB2\xB3\xB9\xBC-\xBE)";

std::string with_unicode_classes(const std::string& expression) {
  std::string result;
  int brackets = 0;
  for (size_t i = 0; i < expression.size(); ++i) {
    const char c = expression[i];
    if (c == '[') ++brackets;
    if (c == ']' && brackets > 0) --brackets;
    if (c != '\\' || i + 1 == expression.size()) {
      result += c;
      continue;
    }
    const char letter = expression[++i];
    const auto* found = std::find_if(std::begin(kClasses), std::end(kClasses),
                                     [&](const Class& entry) { return entry.letter == letter; });
    if (found == std::end(kClasses)) {
      result += {'\\', letter};
    } else {
      const char* more = letter == 'w' ? kNumbersAsWords : "";
      result += brackets > 0 ? found->members : fmt::format("[{}{}]", found->members, more);
    }
  }
  return result;
}

size_t next_character(std::string_view text, size_t position) {
  return position < text.size() ? position + utf8_at(text, position).length : position + 1;
}

}  // namespace

Regex::Regex(const std::string& expression) {
  const std::string translated = with_unicode_classes(expression);
  int error = 0;
  size_t where = 0;
  pcre2_code* code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_UTF_CHECK, &error, &where, nullptr);
  if (code == nullptr) {
    fail("cannot use the regular expression {} of the tokenizer: {}", expression,
         message_of(error));
  }
  code_ =
      std::shared_ptr<void>(code, [](void* p) { pcre2_code_free(static_cast<pcre2_code*>(p)); });
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // where there is no JIT, matching is interpreted
}

void Regex::find_all(std::string_view text, std::vector<Range>& matches) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  Scratch& memory = scratch();
  const size_t* found = pcre2_get_ovector_pointer(memory.match);
  size_t position = 0;
  while (position <= text.size()) {
    const int count = pcre2_match(code, subject, text.size(), position, PCRE2_NO_UTF_CHECK,
                                  memory.match, memory.context);
    if (count == PCRE2_ERROR_NOMATCH) return;
    if (count < 0)
      fail("cannot split the text by the tokenizer's expression: {}", message_of(count));
    const Range match{found[0], found[1]};
    // An empty match right after the last match is none.
    if (match.begin < match.end || matches.empty() || matches.back().end != match.begin) {
      matches.push_back(match);
    }
    position = match.begin < match.end ? match.end : next_character(text, match.end);
  }
}

Pattern::Pattern(const JsonPart& part) {
  if (part.has("Regex")) {
    regex_ = std::make_shared<Regex>(part.text("Regex"));
  } else if (part.has("String")) {
    literal_ = part.text("String");
    if (literal_.empty()) part.fail_here("the string to search for is empty");
  } else {
    part.fail_here("neither String nor Regex is given");
  }
}

void Pattern::find_all(std::string_view text, std::vector<Range>& matches) const {
  if (regex_) return regex_->find_all(text, matches);
  for (size_t at = text.find(literal_); at != text.npos; at = text.find(literal_, at)) {
    matches.push_back({at, at + literal_.size()});
    at += literal_.size();
  }
}

std::string Pattern::replace_all(std::string_view text, std::string_view content) const {
  std::vector<Range> matches;
  find_all(text, matches);
  std::string result;
  size_t done = 0;
  for (const Range& match : matches) {
    result.append(text.substr(done, match.begin - done)).append(content);
    done = match.end;
  }
  return result.append(text.substr(done));
}

}  // namespace qnpu
