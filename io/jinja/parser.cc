#include "io/jinja/parser.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>

#include "base/status.h"
#include "io/jinja/lexer.h"

namespace qnpu {

namespace {

using Kind = JinjaToken::Kind;
using Expression = JinjaExpression;
using Statement = JinjaStatement;
using Words = std::initializer_list<std::string_view>;

constexpr size_t kMostTokens = 50'000;
constexpr int kDeepest = 200;  // parts within parts; deeper ones would use up the stack

class Parser {
 public:
  explicit Parser(const std::string& source) : tokens_(read_jinja_tokens(source)) {
    if (tokens_.size() > kMostTokens) fail_at("the template is too long");
  }

  std::vector<Statement> run() {
    std::vector<Statement> statements = read_body({});
    if (now().kind != Kind::kEnd) fail_at("{% " + now().text + " %} closes nothing");
    return statements;
  }

 private:
  // --- Tokens

  const JinjaToken& now() const { return tokens_[at_]; }
  JinjaToken take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool is(Kind kind, std::string_view text) const {
    return now().kind == kind && now().text == text;
  }
  bool is_sign(std::string_view text) const { return is(Kind::kSign, text); }
  bool is_name(std::string_view text) const { return is(Kind::kName, text); }

  bool takes(Kind kind, std::string_view text) {
    const bool found = is(kind, text);
    if (found) take();
    return found;
  }
  bool takes_sign(std::string_view text) { return takes(Kind::kSign, text); }
  bool takes_name(std::string_view text) { return takes(Kind::kName, text); }

  [[noreturn]] void fail_at(const std::string& what) const {
    fail("line {}: {}", now().line, what);
  }

  void expect_sign(std::string_view text) {
    if (!takes_sign(text)) fail_at(fmt::format("{} is expected, not {}", text, described()));
  }
  void expect_name(std::string_view text) {
    if (!takes_name(text)) fail_at(fmt::format("{} is expected, not {}", text, described()));
  }
  std::string expect_any_name() {
    if (now().kind != Kind::kName) fail_at("a name is expected, not " + described());
    return take().text;
  }
  void expect(Kind kind) {
    if (now().kind != kind) fail_at("the end of a part is expected, not " + described());
    take();
  }
  std::string described() const {
    return now().kind == Kind::kTagEnd || now().kind == Kind::kPrintEnd ? "the end of the part"
                                                                        : now().text;
  }

  // --- Statements

  // Up to a tag whose name is among `ends`, which is left standing behind {%.
  std::vector<Statement> read_body(Words ends) {
    const Depth depth(*this);
    std::vector<Statement> body;
    while (true) {
      if (now().kind == Kind::kEnd) {
        if (ends.size() > 0) fail_at(fmt::format("{{% {} %}} is missing", *(ends.end() - 1)));
        return body;
      }
      const JinjaToken token = take();
      if (token.kind == Kind::kText) {
        body.push_back({Statement::Op::kText, token.line, token.text, {}, {}, {}, {}, {}});
      } else if (token.kind == Kind::kPrint) {
        body.push_back({Statement::Op::kPrint, token.line, "", {}, read_tuple(), {}, {}, {}});
        expect(Kind::kPrintEnd);
      } else {
        for (const std::string_view end : ends) {
          if (is_name(end)) return body;
        }
        if (now().text.starts_with("end") || is_name("else") || is_name("elif")) return body;
        body.push_back(read_statement());
      }
    }
  }

  // The name of the tag that ends a body, and what closes it.
  void end_tag(std::string_view name) {
    expect_name(name);
    expect(Kind::kTagEnd);
  }

  Statement read_statement() {
    Statement statement;
    statement.line = now().line;
    const std::string name = expect_any_name();
    if (name == "if") {
      read_if(statement);
    } else if (name == "for") {
      read_for(statement);
    } else if (name == "set") {
      read_set(statement);
    } else if (name == "macro") {
      read_macro(statement);
    } else if (name == "generation") {  // transformers' own: marks what the model says
      statement.op = Statement::Op::kBlock;
      expect(Kind::kTagEnd);
      statement.body = read_body({"endgeneration"});
      end_tag("endgeneration");
    } else if (name == "break" || name == "continue") {
      statement.op = name == "break" ? Statement::Op::kBreak : Statement::Op::kContinue;
      expect(Kind::kTagEnd);
    } else {
      fail("line {}: {{% {} %}} is not supported", statement.line, name);
    }
    return statement;
  }

  void read_if(Statement& statement) {
    statement.op = Statement::Op::kIf;
    statement.value = read_tuple();
    expect(Kind::kTagEnd);
    statement.body = read_body({"elif", "else", "endif"});
    if (is_name("elif")) {
      take();
      Statement other;
      other.line = now().line;
      const Depth depth(*this);
      read_if(other);
      statement.otherwise.push_back(std::move(other));
      return;  // the last branch has taken the end
    }
    if (takes_name("else")) {
      expect(Kind::kTagEnd);
      statement.otherwise = read_body({"endif"});
    }
    end_tag("endif");
  }

  void read_for(Statement& statement) {
    statement.op = Statement::Op::kFor;
    do {
      statement.names.push_back(expect_any_name());
    } while (takes_sign(","));
    expect_name("in");
    // A condition behind it belongs to the loop, not to the list.
    statement.value = read_or();
    if (takes_name("if")) statement.parts.push_back(read_expression());
    if (is_name("recursive")) fail_at("a recursive loop is not supported");
    expect(Kind::kTagEnd);
    statement.body = read_body({"else", "endfor"});
    if (takes_name("else")) {
      expect(Kind::kTagEnd);
      statement.otherwise = read_body({"endfor"});
    }
    end_tag("endfor");
  }

  void read_set(Statement& statement) {
    statement.names.push_back(expect_any_name());
    if (takes_sign(".")) statement.names.push_back(expect_any_name());
    if (takes_sign("=")) {
      statement.op = Statement::Op::kSet;
      statement.value = read_tuple();
      expect(Kind::kTagEnd);
      return;
    }
    if (now().kind != Kind::kTagEnd) fail_at("this form of set is not supported");
    statement.op = Statement::Op::kSetBlock;
    expect(Kind::kTagEnd);
    statement.body = read_body({"endset"});
    end_tag("endset");
  }

  void read_macro(Statement& statement) {
    statement.op = Statement::Op::kMacro;
    statement.names.push_back(expect_any_name());
    expect_sign("(");
    while (!takes_sign(")")) {
      statement.names.push_back(expect_any_name());
      if (takes_sign("=")) {
        statement.parts.push_back(read_expression());
      } else if (!statement.parts.empty()) {
        fail_at("a parameter without a default is behind one that has one");
      }
      if (!is_sign(")")) expect_sign(",");
    }
    expect(Kind::kTagEnd);
    statement.body = read_body({"endmacro"});
    expect_name("endmacro");
    if (now().kind == Kind::kName) take();
    expect(Kind::kTagEnd);
  }

  // --- Expressions, from what binds least to what binds most

  Expression make(Expression::Op op, std::string name, std::vector<Expression> parts) const {
    return {op, now().line, std::move(name), nullptr, std::move(parts), {}};
  }

  Expression literal(JinjaValue value) const {
    return {Expression::Op::kLiteral, now().line, "", std::move(value), {}, {}};
  }

  // "a, b" is a list.
  Expression read_tuple() {
    Expression first = read_expression();
    if (!is_sign(",")) return first;
    Expression list = make(Expression::Op::kList, "", {std::move(first)});
    while (takes_sign(",")) {
      if (now().kind == Kind::kTagEnd || now().kind == Kind::kPrintEnd || is_sign(")")) break;
      list.parts.push_back(read_expression());
    }
    return list;
  }

  Expression read_expression() {
    const Depth depth(*this);
    Expression value = read_or();
    while (takes_name("if")) {
      Expression condition = read_or();
      Expression other = takes_name("else") ? read_expression()
                                            : literal(JinjaValue(JinjaValue::value_t::discarded));
      value = make(Expression::Op::kCondition, "",
                   {std::move(value), std::move(condition), std::move(other)});
    }
    return value;
  }

  // What `next` reads, as often as one of `words` stands between; from left to right.
  Expression read_chain(Kind kind, Words words, Expression (Parser::*next)()) {
    Expression left = (this->*next)();
    while (now().kind == kind && std::find(words.begin(), words.end(), now().text) != words.end()) {
      std::string sign = take().text;
      left = binary(std::move(sign), std::move(left), (this->*next)());
    }
    return left;
  }

  Expression read_or() { return read_chain(Kind::kName, {"or"}, &Parser::read_and); }
  Expression read_and() { return read_chain(Kind::kName, {"and"}, &Parser::read_not); }

  Expression read_not() {
    if (!takes_name("not")) return read_comparison();
    const Depth depth(*this);
    return make(Expression::Op::kUnary, "not", {read_not()});
  }

  Expression binary(std::string sign, Expression left, Expression right) const {
    return make(Expression::Op::kBinary, std::move(sign), {std::move(left), std::move(right)});
  }

  std::string take_comparison() {
    for (const char* sign : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (takes_sign(sign)) return sign;
    }
    if (takes_name("in")) return "in";
    if (is_name("not") && tokens_[at_ + 1].kind == Kind::kName && tokens_[at_ + 1].text == "in") {
      take();
      take();
      return "not in";
    }
    return "";
  }

  Expression read_comparison() {
    Expression left = read_sum();
    const std::string sign = take_comparison();
    if (sign.empty()) return left;
    left = binary(sign, std::move(left), read_sum());
    if (!take_comparison().empty()) fail_at("a chain of comparisons is not supported");
    return left;
  }

  Expression read_sum() { return read_chain(Kind::kSign, {"+", "-"}, &Parser::read_joined); }
  Expression read_joined() { return read_chain(Kind::kSign, {"~"}, &Parser::read_product); }
  Expression read_product() {
    return read_chain(Kind::kSign, {"*", "/", "//", "%"}, &Parser::read_unary);
  }

  // Filters bind closer than a sign's operand ends: -a|f is (-a)|f.
  Expression read_unary() { return read_filters(read_signed()); }

  Expression read_signed() {
    if (!is_sign("-") && !is_sign("+")) return read_postfix(read_primary());
    const Depth depth(*this);
    std::string sign = take().text;
    return make(Expression::Op::kUnary, std::move(sign), {read_signed()});
  }

  Expression read_primary() {
    const JinjaToken token = take();
    if (token.kind == Kind::kString) {
      std::string text = token.text;
      while (now().kind == Kind::kString) text += take().text;
      return literal(text);
    }
    if (token.kind == Kind::kNumber) {
      if (token.text.find('.') != token.text.npos) return literal(std::stod(token.text));
      if (token.text.size() > 15) fail_at("the number " + token.text + " is too large");
      return literal(std::stoll(token.text));
    }
    if (token.kind == Kind::kName) {
      const std::string& name = token.text;
      if (name == "true" || name == "True") return literal(true);
      if (name == "false" || name == "False") return literal(false);
      if (name == "none" || name == "None") return literal(nullptr);
      return make(Expression::Op::kName, name, {});
    }
    if (token.kind == Kind::kSign && token.text == "(") return read_parenthesis();
    if (token.kind == Kind::kSign && token.text == "[") return read_list();
    if (token.kind == Kind::kSign && token.text == "{") return read_dict();
    --at_;
    fail_at("a value is expected, not " + described());
  }

  Expression read_parenthesis() {
    if (takes_sign(")")) return make(Expression::Op::kList, "", {});
    Expression inside = read_tuple();
    expect_sign(")");
    return inside;
  }

  Expression read_list() {
    Expression list = make(Expression::Op::kList, "", {});
    while (!takes_sign("]")) {
      list.parts.push_back(read_expression());
      if (!is_sign("]")) expect_sign(",");
    }
    return list;
  }

  Expression read_dict() {
    Expression dict = make(Expression::Op::kDict, "", {});
    while (!takes_sign("}")) {
      dict.parts.push_back(read_expression());
      expect_sign(":");
      dict.parts.push_back(read_expression());
      if (!is_sign("}")) expect_sign(",");
    }
    return dict;
  }

  Expression read_postfix(Expression value) {
    while (true) {
      if (takes_sign(".")) {
        if (now().kind != Kind::kName && now().kind != Kind::kNumber) expect_any_name();
        value = now().kind == Kind::kNumber
                    ? make(Expression::Op::kItem, "", {std::move(value), read_primary()})
                    : make(Expression::Op::kAttribute, take().text, {std::move(value)});
      } else if (takes_sign("[")) {
        value = read_item(std::move(value));
      } else if (is_sign("(")) {
        value = make(Expression::Op::kCall, "", {std::move(value)});
        read_arguments(value);
      } else {
        return value;
      }
    }
  }

  Expression read_item(Expression value) {
    const auto part = [&] {
      const bool none = is_sign(":") || is_sign("]");
      return none ? literal(nullptr) : read_expression();
    };
    Expression first = part();
    if (takes_sign("]"))
      return make(Expression::Op::kItem, "", {std::move(value), std::move(first)});
    expect_sign(":");
    Expression second = part();
    Expression third = takes_sign(":") ? part() : literal(nullptr);
    expect_sign("]");
    return make(Expression::Op::kSlice, "",
                {std::move(value), std::move(first), std::move(second), std::move(third)});
  }

  // "(a, key=b)", added to the parts of `call`.
  void read_arguments(Expression& call) {
    expect_sign("(");
    while (!takes_sign(")")) {
      const bool named = now().kind == Kind::kName && tokens_[at_ + 1].kind == Kind::kSign &&
                         tokens_[at_ + 1].text == "=";
      if (named) {
        call.keywords.push_back(take().text);
        take();
      } else if (!call.keywords.empty()) {
        fail_at("an argument without a name is behind one that has one");
      }
      call.parts.push_back(read_expression());
      if (!is_sign(")")) expect_sign(",");
    }
  }

  Expression read_filters(Expression value) {
    while (true) {
      if (takes_sign("|")) {
        value = make(Expression::Op::kFilter, expect_any_name(), {std::move(value)});
        if (is_sign("(")) read_arguments(value);
      } else if (takes_name("is")) {
        value = read_test(std::move(value));
      } else {
        return value;
      }
    }
  }

  Expression read_test(Expression value) {
    const bool negated = takes_name("not");
    Expression test = make(Expression::Op::kTest, expect_any_name(), {std::move(value)});
    if (is_sign("(")) {
      read_arguments(test);
    } else if (now().kind == Kind::kString || now().kind == Kind::kNumber || is_sign("[")) {
      test.parts.push_back(read_primary());
    } else if (now().kind == Kind::kName && !is_name("and") && !is_name("or") && !is_name("else") &&
               !is_name("if") && !is_name("is") && !is_name("in") && !is_name("not")) {
      test.parts.push_back(read_postfix(read_primary()));
    }
    return negated ? make(Expression::Op::kUnary, "not", {std::move(test)}) : test;
  }

  // Counts how deep one is, while it lives.
  struct Depth {
    explicit Depth(Parser& p) : parser(p) {
      if (++parser.depth_ > kDeepest) parser.fail_at("parts are nested too deeply");
    }
    ~Depth() { --parser.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;
    Parser& parser;
  };

  std::vector<JinjaToken> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

std::vector<JinjaStatement> parse_jinja(const std::string& source) { return Parser(source).run(); }

}  // namespace qnpu
