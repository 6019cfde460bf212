// A chat template as a tree: what to write, and under which conditions. Names of filters and tests
// are checked when they are used.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace qnpu {

// A value of the template language. `discarded` stands for Jinja's undefined.
using JinjaValue = nlohmann::ordered_json;

struct JinjaExpression {
  enum class Op {
    kLiteral,    // value
    kName,       // name
    kList,       // parts: items (a tuple too)
    kDict,       // parts: key, value, key, value ...
    kAttribute,  // parts[0].name
    kItem,       // parts[0][parts[1]]
    kSlice,      // parts[0][parts[1]:parts[2]:parts[3]]; a literal none where none is given
    kCall,       // parts[0](parts[1], ...)
    kFilter,     // parts[0] | name(parts[1], ...)
    kTest,       // parts[0] is name(parts[1], ...)
    kUnary,      // name: not - +
    kBinary,     // name: the sign, or "and", "or", "in", "not in"
    kCondition,  // parts[0] if parts[1] else parts[2]
  };
  Op op = Op::kLiteral;
  int line = 0;
  std::string name;
  JinjaValue value;
  std::vector<JinjaExpression> parts;
  std::vector<std::string> keywords;  // of the last arguments of a call or filter
};

struct JinjaStatement {
  enum class Op {
    kText,      // text
    kPrint,     // value
    kIf,        // value, body, otherwise
    kFor,       // names in value, if condition (parts[0]), body, otherwise
    kSet,       // names[0], or names[0].names[1], becomes value
    kSetBlock,  // names[0] becomes the text of body
    kMacro,     // names[0] with the parameters names[1...], defaults of the last: parts
    kBlock,     // body, always
    kBreak,
    kContinue,
  };
  Op op = Op::kBlock;
  int line = 0;
  std::string text;
  std::vector<std::string> names;
  JinjaExpression value;
  std::vector<JinjaExpression> parts;
  std::vector<JinjaStatement> body, otherwise;
};

// Error naming the line: what is no Jinja, or a statement that is not supported.
std::vector<JinjaStatement> parse_jinja(const std::string& source);

}  // namespace qnpu
