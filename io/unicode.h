// UTF-8 and the few character properties that reading text and tokenizing need.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace qnpu {

// The character at `text[position]`, which must be inside. A byte that begins no valid sequence
// gives length = the bytes to skip (the longest prefix of a valid sequence, at least 1) and
// valid = false, so that one U+FFFD stands for what Unicode calls a maximal subpart.
struct Utf8Char {
  int32_t code = 0;
  int length = 0;
  bool valid = false;
};
Utf8Char utf8_at(std::string_view text, size_t position);

size_t count_invalid_utf8(std::string_view text);         // sequences, not bytes
std::string replace_invalid_utf8(std::string_view text);  // each becomes U+FFFD
void append_utf8(std::string& text, int32_t code);

int64_t count_characters(std::string_view valid_utf8);
bool is_ascii(std::string_view text);
bool is_number(int32_t code);      // general category N
bool is_whitespace(int32_t code);  // property White_Space
bool is_word(int32_t code);        // \w: letters, marks, decimal digits, connectors, joiners

// Behind the characters from `position` on for which `is_skipped` holds.
size_t skip(std::string_view text, size_t position, bool (*is_skipped)(int32_t code));

// White space as Python has it, which counts four separators more.
bool is_python_space(int32_t code);
std::string_view without_end_space(std::string_view text);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
std::string normalize(std::string_view valid_utf8, NormalForm form);

}  // namespace qnpu
