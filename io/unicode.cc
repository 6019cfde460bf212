#include "io/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>

#include "base/status.h"

namespace qnpu {

namespace {

// Bytes that a sequence beginning with `lead` has, and the range of its second byte (this excludes
// overlong forms, surrogates and codes above U+10FFFF). Table 3-7 of the Unicode standard.
struct Lead {
  int length;
  uint8_t low, high;
};

Lead lead_of(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2 || byte > 0xF4) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte < 0xF0) {
    return {3, static_cast<uint8_t>(byte == 0xE0 ? 0xA0 : 0x80),
            static_cast<uint8_t>(byte == 0xED ? 0x9F : 0xBF)};
  }
  return {4, static_cast<uint8_t>(byte == 0xF0 ? 0x90 : 0x80),
          static_cast<uint8_t>(byte == 0xF4 ? 0x8F : 0xBF)};
}

}  // namespace

Utf8Char utf8_at(std::string_view text, size_t position) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[position + i]); };
  const Lead lead = lead_of(byte(0));
  if (lead.length == 0) return {0xFFFD, 1, false};
  if (lead.length == 1) return {byte(0), 1, true};
  int32_t code = byte(0) & (0xFF >> (lead.length + 1));
  for (int i = 1; i < lead.length; ++i) {
    const bool inside = position + i < text.size();
    const uint8_t low = i == 1 ? lead.low : 0x80, high = i == 1 ? lead.high : 0xBF;
    if (!inside || byte(i) < low || byte(i) > high) return {0xFFFD, i, false};
    code = code << 6 | (byte(i) & 0x3F);
  }
  return {code, lead.length, true};
}

size_t count_invalid_utf8(std::string_view text) {
  size_t count = 0;
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = utf8_at(text, i);
    count += !c.valid;
    i += c.length;
  }
  return count;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = utf8_at(text, i);
    result += c.valid ? text.substr(i, c.length) : std::string_view("\xEF\xBF\xBD");
    i += c.length;
  }
  return result;
}

void append_utf8(std::string& text, int32_t code) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(code, bytes);
  text.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
}

// Bytes that continue no character.
int64_t count_characters(std::string_view valid_utf8) {
  return std::ranges::count_if(valid_utf8, [](char c) { return (c & 0xc0) != 0x80; });
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
}

bool is_number(int32_t code) {
  const auto category = utf8proc_category(code);
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

bool is_whitespace(int32_t code) {
  return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 ||
         code == 0x202F || code == 0x205F || code == 0x3000;
}

bool is_python_space(int32_t code) { return is_whitespace(code) || (code >= 0x1C && code <= 0x1F); }

size_t skip(std::string_view text, size_t position, bool (*is_skipped)(int32_t code)) {
  while (position < text.size()) {
    const Utf8Char c = utf8_at(text, position);
    if (!is_skipped(c.code)) break;
    position += c.length;
  }
  return position;
}

std::string_view without_end_space(std::string_view text) {
  size_t end = 0;
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = utf8_at(text, i);
    i += c.length;
    if (!is_python_space(c.code)) end = i;
  }
  return text.substr(0, end);
}

bool is_word(int32_t code) {
  const auto category = utf8proc_category(code);
  return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) ||
         category == UTF8PROC_CATEGORY_PC || code == 0x200C || code == 0x200D ||
         (code >= 0x24B6 && code <= 0x24E9) ||  // letters in circles and squares
         (code >= 0x1F130 && code <= 0x1F149) || (code >= 0x1F150 && code <= 0x1F169) ||
         (code >= 0x1F170 && code <= 0x1F189);
}

std::string normalize(std::string_view valid_utf8, NormalForm form) {
  if (is_ascii(valid_utf8)) return std::string(valid_utf8);
  const bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  int options = UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE);
  if (compatible) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* normalized = nullptr;
  const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(valid_utf8.data()),
                                   static_cast<utf8proc_ssize_t>(valid_utf8.size()), &normalized,
                                   static_cast<utf8proc_option_t>(options));
  if (length < 0) fail("cannot normalize the text: {}", utf8proc_errmsg(length));
  std::string result(reinterpret_cast<const char*>(normalized), static_cast<size_t>(length));
  std::free(normalized);
  return result;
}

}  // namespace qnpu
