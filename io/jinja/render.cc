#include "io/jinja/render.h"

#include <map>
#include <memory>
#include <set>

#include "base/status.h"
#include "io/jinja/values.h"

namespace qnpu {

namespace {

using Value = JinjaValue;
using Expression = JinjaExpression;
using Statement = JinjaStatement;

constexpr int kMostSteps = 1 << 20;
constexpr int kDeepest = 1000;
constexpr size_t kLongest = 64 << 20;  // bytes of text

// Jinja's and transformers' own, but for strftime_now.
const std::set<std::string_view> kFunctions = {"namespace", "dict",   "range", "raise_exception",
                                               "cycler",    "joiner", "lipsum"};

enum class Flow { kNext, kBreak, kContinue };

class Renderer {
 public:
  explicit Renderer(const Value& variables) {
    open_scope();
    for (const auto& [name, value] : variables.items()) (*scopes_.back())[name] = value;
  }

  std::string run(const std::vector<Statement>& statements) {
    try {
      run_body(statements);
    } catch (const Error& error) {
      fail("line {}: {}", line_, error.what());
    }
    return std::move(out_);
  }

 private:
  using Scope = std::map<std::string, Value>;

  void open_scope() { scopes_.push_back(std::make_shared<Scope>()); }

  Value* find(const std::string& name) {
    for (size_t i = scopes_.size(); i-- > 0;) {
      const auto found = scopes_[i]->find(name);
      if (found != scopes_[i]->end()) return &found->second;
    }
    return nullptr;
  }

  void step(int line) {
    line_ = line;
    if (++steps_ > kMostSteps || out_.size() > kLongest)
      fail("the template does not come to an end");
  }

  // Counts how deep one is, while it lives.
  struct Depth {
    explicit Depth(int& d) : depth(d) {
      if (++depth > kDeepest) fail("the template goes too deep");
    }
    ~Depth() { --depth; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;
    int& depth;
  };

  // --- Statements

  Flow run_body(const std::vector<Statement>& body) {
    const Depth depth(depth_);
    for (const Statement& statement : body) {
      if (const Flow flow = run_one(statement); flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  Flow run_one(const Statement& s) {
    step(s.line);
    switch (s.op) {
      case Statement::Op::kText:
        out_ += s.text;
        break;
      case Statement::Op::kPrint:
        out_ += jinja_text(evaluate(s.value));
        break;
      case Statement::Op::kIf:
        return run_body(jinja_true(evaluate(s.value)) ? s.body : s.otherwise);
      case Statement::Op::kFor:
        run_for(s);
        break;
      case Statement::Op::kSet:
        if (makes_namespace(s.value)) namespaces_.insert(s.names[0]);
        assign(s.names, evaluate(s.value));
        break;
      case Statement::Op::kSetBlock:
        assign(s.names, captured(s.body));
        break;
      case Statement::Op::kMacro:
        macros_[s.names[0]] = &s;
        break;
      case Statement::Op::kBlock:
        return run_body(s.body);
      case Statement::Op::kBreak:
        return Flow::kBreak;
      case Statement::Op::kContinue:
        return Flow::kContinue;
    }
    return Flow::kNext;
  }

  // A namespace has one name, and is used by its attributes only: so it needs no second reference.
  static bool makes_namespace(const Expression& e) {
    return e.op == Expression::Op::kCall && e.parts[0].name == "namespace";
  }

  // The attribute of a namespace changes where that stands; a name, in the innermost scope.
  void assign(const std::vector<std::string>& names, Value value) {
    if (names.size() == 1) {
      (*scopes_.back())[names[0]] = std::move(value);
      return;
    }
    Value* const space = find(names[0]);
    if (space == nullptr || !namespaces_.contains(names[0])) fail("{} is no namespace", names[0]);
    (*space)[names[1]] = std::move(value);
  }

  std::string captured(const std::vector<Statement>& body) {
    std::string outside = std::exchange(out_, "");
    run_body(body);
    return std::exchange(out_, std::move(outside));
  }

  void name_item(const std::vector<std::string>& names, const Value& item) {
    if (names.size() == 1) return assign(names, item);
    const std::vector<Value> parts = jinja_items(item);
    if (parts.size() != names.size())
      fail("a loop has {} names for {} values", names.size(), parts.size());
    for (size_t i = 0; i < names.size(); ++i) assign({names[i]}, parts[i]);
  }

  std::vector<Value> items_of_loop(const Statement& s) {
    std::vector<Value> items = jinja_items(evaluate(s.value));
    if (s.parts.empty()) return items;
    std::vector<Value> chosen;
    for (const Value& item : items) {
      open_scope();
      name_item(s.names, item);
      if (jinja_true(evaluate(s.parts[0]))) chosen.push_back(item);
      scopes_.pop_back();
    }
    return chosen;
  }

  static Value loop_variable(const std::vector<Value>& items, size_t i) {
    const size_t count = items.size();
    return {{"index", i + 1},
            {"index0", i},
            {"revindex", count - i},
            {"revindex0", count - i - 1},
            {"first", i == 0},
            {"last", i + 1 == count},
            {"length", count},
            {"previtem", i > 0 ? items[i - 1] : jinja_undefined()},
            {"nextitem", i + 1 < count ? items[i + 1] : jinja_undefined()}};
  }

  void run_for(const Statement& s) {
    const std::vector<Value> items = items_of_loop(s);
    if (items.empty()) {
      run_body(s.otherwise);
      return;
    }
    for (size_t i = 0; i < items.size(); ++i) {
      open_scope();
      (*scopes_.back())["loop"] = loop_variable(items, i);
      name_item(s.names, items[i]);
      const Flow flow = run_body(s.body);
      scopes_.pop_back();
      if (flow == Flow::kBreak) break;
    }
  }

  // --- Expressions

  Value evaluate(const Expression& e) {
    const Depth depth(depth_);
    step(e.line);
    switch (e.op) {
      case Expression::Op::kLiteral:
        return e.value;
      case Expression::Op::kName:
        return named(e.name);
      case Expression::Op::kList: {
        Value list = Value::array();
        for (const Expression& part : e.parts) list.push_back(evaluate(part));
        return list;
      }
      case Expression::Op::kDict:
        return dict_of(e);
      case Expression::Op::kAttribute:
        return attribute(e);
      case Expression::Op::kItem:
        return jinja_item(evaluate(e.parts[0]), evaluate(e.parts[1]));
      case Expression::Op::kSlice:
        return jinja_slice(evaluate(e.parts[0]), evaluate(e.parts[1]), evaluate(e.parts[2]),
                           evaluate(e.parts[3]));
      case Expression::Op::kCall:
        return call(e);
      case Expression::Op::kFilter:
        return jinja_filter(evaluate(e.parts[0]), e.name, arguments_of(e));
      case Expression::Op::kTest:
        return jinja_test(evaluate(e.parts[0]), e.name, arguments_of(e));
      case Expression::Op::kUnary:
        return unary(e);
      case Expression::Op::kBinary:
        return binary(e);
      case Expression::Op::kCondition:
        return evaluate(e.parts[jinja_true(evaluate(e.parts[1])) ? 0 : 2]);
    }
    return jinja_undefined();
  }

  // What is no value here must not be taken for an undefined one.
  Value named(const std::string& name) {
    if (const Value* const found = find(name); found != nullptr) {
      if (namespaces_.contains(name)) fail("the namespace {} is used as a value", name);
      return *found;
    }
    if (macros_.contains(name) || kFunctions.contains(name)) {
      fail("the function {} is used as a value", name);
    }
    return jinja_undefined();
  }

  Value attribute(const Expression& e) {
    const Expression& whole = e.parts[0];
    const bool of_namespace = whole.op == Expression::Op::kName && namespaces_.contains(whole.name);
    const Value* const space = of_namespace ? find(whole.name) : nullptr;
    if (space != nullptr) return jinja_item(*space, e.name);
    return jinja_item(evaluate(whole), e.name);
  }

  Value dict_of(const Expression& e) {
    Value dict = Value::object();
    for (size_t i = 0; i + 1 < e.parts.size(); i += 2) {
      const Value key = evaluate(e.parts[i]);
      if (!key.is_string()) fail("a key that is no string is not supported");
      dict[key.get<std::string>()] = evaluate(e.parts[i + 1]);
    }
    return dict;
  }

  Value unary(const Expression& e) {
    const Value value = evaluate(e.parts[0]);
    if (e.name == "not") return !jinja_true(value);
    return jinja_binary(e.name, 0, value);
  }

  Value binary(const Expression& e) {
    Value left = evaluate(e.parts[0]);
    if (e.name == "and") return jinja_true(left) ? evaluate(e.parts[1]) : left;
    if (e.name == "or") return jinja_true(left) ? left : evaluate(e.parts[1]);
    return jinja_binary(e.name, left, evaluate(e.parts[1]));
  }

  // Those behind the first part, which is what they are given to.
  JinjaArguments arguments_of(const Expression& e) {
    JinjaArguments arguments;
    const size_t plain = e.parts.size() - e.keywords.size();
    for (size_t i = 1; i < e.parts.size(); ++i) {
      Value value = evaluate(e.parts[i]);
      if (i < plain) {
        arguments.list.push_back(std::move(value));
      } else {
        arguments.named.emplace_back(e.keywords[i - plain], std::move(value));
      }
    }
    return arguments;
  }

  Value call(const Expression& e) {
    const Expression& called = e.parts[0];
    const JinjaArguments arguments = arguments_of(e);
    if (called.op == Expression::Op::kAttribute) {
      return jinja_method(evaluate(called.parts[0]), called.name, arguments);
    }
    if (called.op != Expression::Op::kName) fail("this kind of call is not supported");
    if (const auto macro = macros_.find(called.name); macro != macros_.end()) {
      return call_macro(*macro->second, arguments);
    }
    return call_function(called.name, arguments);
  }

  Value call_function(const std::string& name, const JinjaArguments& arguments) {
    if (name == "namespace" || name == "dict") {
      Value space = Value::object();
      for (const Value& given : arguments.list) space.update(given);
      for (const auto& [key, value] : arguments.named) space[key] = value;
      return space;
    }
    if (name == "range") return range(arguments);
    if (name == "raise_exception") {
      fail("the template refuses these messages: {}", jinja_text(arguments.get(0, "message")));
    }
    if (name == "strftime_now")
      fail("the template asks for today's date, on which no prompt depends");
    fail("the function {} is not supported", name);
  }

  static Value range(const JinjaArguments& arguments) {
    arguments.check("range", 3);
    std::vector<int64_t> bounds;
    for (const Value& bound : arguments.list) {
      if (!bound.is_number_integer()) fail("range needs whole numbers");
      bounds.push_back(bound.get<int64_t>());
    }
    if (bounds.size() == 1) bounds.insert(bounds.begin(), 0);
    if (bounds.size() == 2) bounds.push_back(1);
    if (bounds.size() != 3 || bounds[2] == 0) fail("range needs an end, and no step of 0");
    Value list = Value::array();
    for (int64_t i = bounds[0]; bounds[2] > 0 ? i < bounds[1] : i > bounds[1]; i += bounds[2]) {
      if (list.size() >= kMostSteps) fail("range is too long");
      list.push_back(i);
    }
    return list;
  }

  // A macro sees the template's own names, not those of the place that calls it.
  Value call_macro(const Statement& macro, const JinjaArguments& arguments) {
    auto scope = std::make_shared<Scope>();
    const size_t parameters = macro.names.size() - 1;
    if (arguments.list.size() > parameters) fail("{} has too many arguments", macro.names[0]);
    for (size_t i = 0; i < parameters; ++i) {
      Value value = arguments.get(i, macro.names[i + 1]);
      const size_t first_default = parameters - macro.parts.size();
      if (value.is_discarded() && i >= first_default) {
        value = evaluate(macro.parts[i - first_default]);
      }
      (*scope)[macro.names[i + 1]] = std::move(value);
    }
    auto outside = std::exchange(scopes_, {scopes_.front(), std::move(scope)});
    Value text = captured(macro.body);
    scopes_ = std::move(outside);
    return text;
  }

  std::vector<std::shared_ptr<Scope>> scopes_;  // the innermost last
  std::map<std::string, const Statement*> macros_;
  std::set<std::string> namespaces_;
  std::string out_;
  int steps_ = 0, depth_ = 0, line_ = 1;
};

}  // namespace

std::string render_jinja(const std::vector<JinjaStatement>& statements,
                         const JinjaValue& variables) {
  return Renderer(variables).run(statements);
}

}  // namespace qnpu
