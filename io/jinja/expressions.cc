#include "io/jinja/expressions.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>

namespace qnpu {
namespace {

using Kind = JinjaToken::Kind;
using Expression = JinjaExpression;
using Words = std::initializer_list<std::string_view>;

bool begins_value(const JinjaToken& token) {
  const bool opens = token.text == "(" || token.text == "[" || token.text == "{";
  return token.kind == Kind::kString || token.kind == Kind::kNumber || token.kind == Kind::kName ||
         (token.kind == Kind::kSign && opens);
}

class ExpressionReader {
 public:
  explicit ExpressionReader(JinjaCursor& cursor) : cursor_(cursor) {}

  Expression read_tuple() {
    Expression first = read_expression();
    if (!cursor_.is_sign(",")) return first;
    Expression list = make(Expression::Op::kList, "", {std::move(first)});
    while (cursor_.takes_sign(",")) {
      if (ends_tuple()) break;
      list.parts.push_back(read_expression());
    }
    return list;
  }

  Expression read_expression() {
    const JinjaDepth depth(cursor_);
    Expression value = read_or();
    while (cursor_.takes_name("if")) {
      Expression condition = read_or();
      Expression other = cursor_.takes_name("else")
                             ? read_expression()
                             : literal(JinjaValue(JinjaValue::value_t::discarded));
      value = make(Expression::Op::kCondition, "",
                   {std::move(value), std::move(condition), std::move(other)});
    }
    return value;
  }

  Expression read_or() { return read_chain(Kind::kName, {"or"}, &ExpressionReader::read_and); }

 private:
  bool ends_tuple() const {
    const Kind kind = cursor_.now().kind;
    return kind == Kind::kTagEnd || kind == Kind::kPrintEnd || cursor_.is_sign(")");
  }

  Expression make(Expression::Op op, std::string name, std::vector<Expression> parts) const {
    return {op, cursor_.now().line, std::move(name), nullptr, std::move(parts), {}};
  }

  Expression literal(JinjaValue value) const {
    return {Expression::Op::kLiteral, cursor_.now().line, "", std::move(value), {}, {}};
  }

  // What `next` reads, as often as one of `words` stands between; from left to right.
  Expression read_chain(Kind kind, Words words, Expression (ExpressionReader::*next)()) {
    Expression left = (this->*next)();
    while (cursor_.now().kind == kind &&
           std::find(words.begin(), words.end(), cursor_.now().text) != words.end()) {
      std::string sign = cursor_.take().text;
      left = binary(std::move(sign), std::move(left), (this->*next)());
    }
    return left;
  }

  Expression read_and() { return read_chain(Kind::kName, {"and"}, &ExpressionReader::read_not); }

  Expression read_not() {
    if (!cursor_.takes_name("not")) return read_comparison();
    const JinjaDepth depth(cursor_);
    return make(Expression::Op::kUnary, "not", {read_not()});
  }

  Expression binary(std::string sign, Expression left, Expression right) const {
    return make(Expression::Op::kBinary, std::move(sign), {std::move(left), std::move(right)});
  }

  std::string take_comparison() {
    for (const char* sign : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (cursor_.takes_sign(sign)) return sign;
    }
    if (cursor_.takes_name("in")) return "in";
    if (cursor_.is_name("not") && cursor_.next_is(Kind::kName, "in")) {
      cursor_.take();
      cursor_.take();
      return "not in";
    }
    return "";
  }

  Expression read_comparison() {
    Expression left = read_sum();
    const std::string sign = take_comparison();
    if (sign.empty()) return left;
    left = binary(sign, std::move(left), read_sum());
    if (!take_comparison().empty()) cursor_.fail_at("a chain of comparisons is not supported");
    return left;
  }

  Expression read_sum() {
    return read_chain(Kind::kSign, {"+", "-"}, &ExpressionReader::read_joined);
  }
  Expression read_joined() {
    return read_chain(Kind::kSign, {"~"}, &ExpressionReader::read_product);
  }
  Expression read_product() {
    return read_chain(Kind::kSign, {"*", "/", "//", "%"}, &ExpressionReader::read_unary);
  }

  // Filters bind closer than a sign's operand ends: -a|f is (-a)|f.
  Expression read_unary() { return read_filters(read_signed()); }

  Expression read_signed() {
    if (!cursor_.is_sign("-") && !cursor_.is_sign("+")) return read_postfix(read_primary());
    const JinjaDepth depth(cursor_);
    std::string sign = cursor_.take().text;
    return make(Expression::Op::kUnary, std::move(sign), {read_signed()});
  }

  Expression read_primary() {
    if (!begins_value(cursor_.now())) {
      cursor_.fail_at("a value is expected, not " + cursor_.described());
    }
    const JinjaToken token = cursor_.take();
    if (token.kind == Kind::kString) {
      std::string text = token.text;
      while (cursor_.now().kind == Kind::kString) text += cursor_.take().text;
      return literal(text);
    }
    if (token.kind == Kind::kNumber) {
      if (token.text.find('.') != token.text.npos) return literal(std::stod(token.text));
      if (token.text.size() > 15) cursor_.fail_at("the number " + token.text + " is too large");
      return literal(std::stoll(token.text));
    }
    if (token.kind == Kind::kName) {
      const std::string& name = token.text;
      if (name == "true" || name == "True") return literal(true);
      if (name == "false" || name == "False") return literal(false);
      if (name == "none" || name == "None") return literal(nullptr);
      return make(Expression::Op::kName, name, {});
    }
    if (token.text == "(") return read_parenthesis();
    return token.text == "[" ? read_list() : read_dict();
  }

  Expression read_parenthesis() {
    if (cursor_.takes_sign(")")) return make(Expression::Op::kList, "", {});
    Expression inside = read_tuple();
    cursor_.expect_sign(")");
    return inside;
  }

  Expression read_list() {
    Expression list = make(Expression::Op::kList, "", {});
    while (!cursor_.takes_sign("]")) {
      list.parts.push_back(read_expression());
      if (!cursor_.is_sign("]")) cursor_.expect_sign(",");
    }
    return list;
  }

  Expression read_dict() {
    Expression dict = make(Expression::Op::kDict, "", {});
    while (!cursor_.takes_sign("}")) {
      dict.parts.push_back(read_expression());
      cursor_.expect_sign(":");
      dict.parts.push_back(read_expression());
      if (!cursor_.is_sign("}")) cursor_.expect_sign(",");
    }
    return dict;
  }

  Expression read_postfix(Expression value) {
    while (true) {
      if (cursor_.takes_sign(".")) {
        if (cursor_.now().kind != Kind::kName && cursor_.now().kind != Kind::kNumber) {
          cursor_.expect_any_name();
        }
        value = cursor_.now().kind == Kind::kNumber
                    ? make(Expression::Op::kItem, "", {std::move(value), read_primary()})
                    : make(Expression::Op::kAttribute, cursor_.take().text, {std::move(value)});
      } else if (cursor_.takes_sign("[")) {
        value = read_item(std::move(value));
      } else if (cursor_.is_sign("(")) {
        value = make(Expression::Op::kCall, "", {std::move(value)});
        read_arguments(value);
      } else {
        return value;
      }
    }
  }

  Expression read_item(Expression value) {
    const auto part = [&] {
      const bool none = cursor_.is_sign(":") || cursor_.is_sign("]");
      return none ? literal(nullptr) : read_expression();
    };
    Expression first = part();
    if (cursor_.takes_sign("]")) {
      return make(Expression::Op::kItem, "", {std::move(value), std::move(first)});
    }
    cursor_.expect_sign(":");
    Expression second = part();
    Expression third = cursor_.takes_sign(":") ? part() : literal(nullptr);
    cursor_.expect_sign("]");
    return make(Expression::Op::kSlice, "",
                {std::move(value), std::move(first), std::move(second), std::move(third)});
  }

  // "(a, key=b)", added to the parts of `call`.
  void read_arguments(Expression& call) {
    cursor_.expect_sign("(");
    while (!cursor_.takes_sign(")")) {
      const bool named = cursor_.now().kind == Kind::kName && cursor_.next_is(Kind::kSign, "=");
      if (named) {
        call.keywords.push_back(cursor_.take().text);
        cursor_.take();
      } else if (!call.keywords.empty()) {
        cursor_.fail_at("an argument without a name is behind one that has one");
      }
      call.parts.push_back(read_expression());
      if (!cursor_.is_sign(")")) cursor_.expect_sign(",");
    }
  }

  Expression read_filters(Expression value) {
    while (true) {
      if (cursor_.takes_sign("|")) {
        value = make(Expression::Op::kFilter, cursor_.expect_any_name(), {std::move(value)});
        if (cursor_.is_sign("(")) read_arguments(value);
      } else if (cursor_.takes_name("is")) {
        value = read_test(std::move(value));
      } else {
        return value;
      }
    }
  }

  Expression read_test(Expression value) {
    const bool negated = cursor_.takes_name("not");
    Expression test = make(Expression::Op::kTest, cursor_.expect_any_name(), {std::move(value)});
    if (cursor_.is_sign("(")) {
      read_arguments(test);
    } else if (cursor_.now().kind == Kind::kString || cursor_.now().kind == Kind::kNumber ||
               cursor_.is_sign("[")) {
      test.parts.push_back(read_primary());
    } else if (cursor_.now().kind == Kind::kName && !cursor_.is_name("and") &&
               !cursor_.is_name("or") && !cursor_.is_name("else") && !cursor_.is_name("if") &&
               !cursor_.is_name("is") && !cursor_.is_name("in") && !cursor_.is_name("not")) {
      test.parts.push_back(read_postfix(read_primary()));
    }
    return negated ? make(Expression::Op::kUnary, "not", {std::move(test)}) : test;
  }

  JinjaCursor& cursor_;
};

}  // namespace

JinjaExpression read_jinja_tuple(JinjaCursor& cursor) {
  return ExpressionReader(cursor).read_tuple();
}

JinjaExpression read_jinja_expression(JinjaCursor& cursor) {
  return ExpressionReader(cursor).read_expression();
}

JinjaExpression read_jinja_condition(JinjaCursor& cursor) {
  return ExpressionReader(cursor).read_or();
}

}  // namespace qnpu
