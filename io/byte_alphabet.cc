#include "io/byte_alphabet.h"

#include <array>

#include "io/unicode.h"

namespace qnpu {

namespace {

struct Alphabet {
  std::array<std::string, 256> characters;
  std::array<int, 256 + 68> bytes;  // of a character; -1: none

  Alphabet() {
    bytes.fill(-1);
    int next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
      const int code = printable ? byte : next++;
      append_utf8(characters[byte], code);
      bytes[code] = byte;
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

std::string to_byte_alphabet(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const char byte : bytes) text += alphabet().characters[static_cast<uint8_t>(byte)];
  return text;
}

bool append_from_byte_alphabet(std::string_view text, std::string& bytes) {
  const size_t start = bytes.size();
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = utf8_at(text, i);
    const bool inside = c.code < static_cast<int32_t>(alphabet().bytes.size());
    if (!inside || alphabet().bytes[c.code] < 0) {
      bytes.resize(start);
      return false;
    }
    bytes += static_cast<char>(alphabet().bytes[c.code]);
    i += c.length;
  }
  return true;
}

}  // namespace qnpu
