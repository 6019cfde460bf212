// The words of a chat template, which is written in Jinja: text, and between {{ }} and {% %} the
// names, strings, numbers and signs of its language.
#pragma once

#include <string>
#include <vector>

namespace qnpu {

struct JinjaToken {
  enum class Kind { kText, kPrint, kPrintEnd, kTag, kTagEnd, kName, kString, kNumber, kSign, kEnd };
  Kind kind;
  std::string text;  // of a string what it means, else as written
  int line;
};

// With the white space taken away that transformers' settings take away (trim_blocks,
// lstrip_blocks). The last token is kEnd. Error naming the line: a part that is not closed, an
// unknown sign.
std::vector<JinjaToken> read_jinja_tokens(const std::string& source);

}  // namespace qnpu
