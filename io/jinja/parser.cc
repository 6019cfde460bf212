#include "io/jinja/parser.h"

#include <initializer_list>
#include <string_view>

#include "base/status.h"
#include "io/jinja/cursor.h"
#include "io/jinja/expressions.h"

namespace qnpu {

namespace {

using Kind = JinjaToken::Kind;
using Statement = JinjaStatement;
using Words = std::initializer_list<std::string_view>;

class Parser {
 public:
  explicit Parser(const std::string& source) : cursor_(source) {}

  std::vector<Statement> run() {
    std::vector<Statement> statements = read_body({});
    if (cursor_.now().kind != Kind::kEnd) {
      cursor_.fail_at("{% " + cursor_.now().text + " %} closes nothing");
    }
    return statements;
  }

 private:
  // Up to a tag whose name is among `ends`, which is left standing behind {%.
  std::vector<Statement> read_body(Words ends) {
    const JinjaDepth depth(cursor_);
    std::vector<Statement> body;
    while (true) {
      if (cursor_.now().kind == Kind::kEnd) {
        if (ends.size() > 0) {
          cursor_.fail_at(fmt::format("{{% {} %}} is missing", *(ends.end() - 1)));
        }
        return body;
      }
      const JinjaToken token = cursor_.take();
      if (token.kind == Kind::kText) {
        body.push_back({Statement::Op::kText, token.line, token.text, {}, {}, {}, {}, {}});
      } else if (token.kind == Kind::kPrint) {
        body.push_back(
            {Statement::Op::kPrint, token.line, "", {}, read_jinja_tuple(cursor_), {}, {}, {}});
        cursor_.expect(Kind::kPrintEnd);
      } else {
        for (const std::string_view end : ends) {
          if (cursor_.is_name(end)) return body;
        }
        const bool branch = cursor_.is_name("else") || cursor_.is_name("elif");
        if (branch || cursor_.now().text.starts_with("end")) return body;
        body.push_back(read_statement());
      }
    }
  }

  // The name of the tag that ends a body, and what closes it.
  void end_tag(std::string_view name) {
    cursor_.expect_name(name);
    cursor_.expect(Kind::kTagEnd);
  }

  Statement read_statement() {
    Statement statement;
    statement.line = cursor_.now().line;
    const std::string name = cursor_.expect_any_name();
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
      cursor_.expect(Kind::kTagEnd);
      statement.body = read_body({"endgeneration"});
      end_tag("endgeneration");
    } else if (name == "break" || name == "continue") {
      statement.op = name == "break" ? Statement::Op::kBreak : Statement::Op::kContinue;
      cursor_.expect(Kind::kTagEnd);
    } else {
      fail("line {}: {{% {} %}} is not supported", statement.line, name);
    }
    return statement;
  }

  void read_if(Statement& statement) {
    statement.op = Statement::Op::kIf;
    statement.value = read_jinja_tuple(cursor_);
    cursor_.expect(Kind::kTagEnd);
    statement.body = read_body({"elif", "else", "endif"});
    if (cursor_.is_name("elif")) {
      cursor_.take();
      Statement other;
      other.line = cursor_.now().line;
      const JinjaDepth depth(cursor_);
      read_if(other);
      statement.otherwise.push_back(std::move(other));
      return;  // the last branch has taken the end
    }
    if (cursor_.takes_name("else")) {
      cursor_.expect(Kind::kTagEnd);
      statement.otherwise = read_body({"endif"});
    }
    end_tag("endif");
  }

  void read_for(Statement& statement) {
    statement.op = Statement::Op::kFor;
    do {
      if (cursor_.is_name("loop")) {
        cursor_.fail_at("'loop' is the loop itself, no name for an item");
      }
      statement.names.push_back(cursor_.expect_any_name());
    } while (cursor_.takes_sign(","));
    cursor_.expect_name("in");
    // A condition behind it belongs to the loop, not to the list.
    statement.value = read_jinja_condition(cursor_);
    if (cursor_.takes_name("if")) statement.parts.push_back(read_jinja_expression(cursor_));
    if (cursor_.is_name("recursive")) cursor_.fail_at("a recursive loop is not supported");
    cursor_.expect(Kind::kTagEnd);
    statement.body = read_body({"else", "endfor"});
    if (cursor_.takes_name("else")) {
      cursor_.expect(Kind::kTagEnd);
      statement.otherwise = read_body({"endfor"});
    }
    end_tag("endfor");
  }

  void read_set(Statement& statement) {
    statement.names.push_back(cursor_.expect_any_name());
    if (cursor_.takes_sign(".")) statement.names.push_back(cursor_.expect_any_name());
    if (cursor_.takes_sign("=")) {
      statement.op = Statement::Op::kSet;
      statement.value = read_jinja_tuple(cursor_);
      cursor_.expect(Kind::kTagEnd);
      return;
    }
    if (cursor_.now().kind != Kind::kTagEnd) cursor_.fail_at("this form of set is not supported");
    statement.op = Statement::Op::kSetBlock;
    cursor_.expect(Kind::kTagEnd);
    statement.body = read_body({"endset"});
    end_tag("endset");
  }

  void read_macro(Statement& statement) {
    statement.op = Statement::Op::kMacro;
    statement.names.push_back(cursor_.expect_any_name());
    cursor_.expect_sign("(");
    while (!cursor_.takes_sign(")")) {
      statement.names.push_back(cursor_.expect_any_name());
      if (cursor_.takes_sign("=")) {
        statement.parts.push_back(read_jinja_expression(cursor_));
      } else if (!statement.parts.empty()) {
        cursor_.fail_at("a parameter without a default is behind one that has one");
      }
      if (!cursor_.is_sign(")")) cursor_.expect_sign(",");
    }
    cursor_.expect(Kind::kTagEnd);
    statement.body = read_body({"endmacro"});
    cursor_.expect_name("endmacro");
    if (cursor_.now().kind == Kind::kName) cursor_.take();
    cursor_.expect(Kind::kTagEnd);
  }

  JinjaCursor cursor_;
};

}  // namespace

std::vector<JinjaStatement> parse_jinja(const std::string& source) { return Parser(source).run(); }

}  // namespace qnpu
