// The alphabet of byte-level tokenizers: each byte is written as one printable character. Printable
// Latin-1 bytes stand for themselves; the other 68 are U+0100, U+0101, ... in order (so a space is
// Ġ).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace qnpu {

std::string to_byte_alphabet(std::string_view bytes);

// False, and nothing is appended, if a character is not of the alphabet.
bool append_from_byte_alphabet(std::string_view text, std::string& bytes);

}  // namespace qnpu
