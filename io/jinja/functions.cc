// Methods, filters and tests of a chat template's values: those that templates use.
#include <algorithm>
#include <functional>
#include <map>

#include "base/status.h"
#include "io/jinja/values.h"
#include "io/unicode.h"

namespace qnpu {

namespace {

using Value = JinjaValue;
using Arguments = JinjaArguments;

const std::string& string(const Value& value, std::string_view user) {
  if (!value.is_string()) fail("{} needs a string, not {}", user, jinja_kind(value));
  return value.get_ref<const std::string&>();
}

// --- Strings

// Whether the character at `at` is one of `characters`; of white space if those are undefined.
bool is_among(const std::string& text, size_t at, const Utf8Char& c, const Value& characters) {
  if (!characters.is_string()) return is_python_space(c.code);
  return string(characters, "strip").find(text.substr(at, c.length)) != std::string::npos;
}

std::string strip(const std::string& text, const Value& characters, bool left, bool right) {
  size_t begin = text.size(), end = 0;
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = utf8_at(text, i);
    const bool stays = !is_among(text, i, c, characters);
    if (stays) begin = std::min(begin, i);
    i += c.length;
    if (stays) end = i;
  }
  if (!left) begin = 0;
  if (!right) end = text.size();
  return begin < end ? text.substr(begin, end - begin) : "";
}

Value split(const std::string& text, const Value& separator, int64_t most) {
  Value parts = Value::array();
  if (!separator.is_string()) {
    std::string word;
    for (size_t i = 0; i < text.size();) {
      const Utf8Char c = utf8_at(text, i);
      if (!is_python_space(c.code)) word += text.substr(i, c.length);
      i += c.length;
      const bool ends = is_python_space(c.code) || i == text.size();
      if (ends && !word.empty()) parts.push_back(std::exchange(word, ""));
    }
    return parts;
  }
  const std::string& mark = string(separator, "split");
  if (mark.empty()) fail("a string is split at nothing");
  size_t begin = 0;
  for (size_t at = text.find(mark); at != text.npos && most != 0; at = text.find(mark, begin)) {
    parts.push_back(text.substr(begin, at - begin));
    begin = at + mark.size();
    --most;
  }
  parts.push_back(text.substr(begin));
  return parts;
}

std::string replace(const std::string& text, const std::string& from, const std::string& to) {
  if (from.empty()) fail("nothing is replaced by something");
  std::string result;
  size_t done = 0;
  for (size_t at = text.find(from); at != text.npos; at = text.find(from, done)) {
    result.append(text, done, at - done).append(to);
    done = at + from.size();
  }
  return result.append(text, done);
}

// Letters beyond ASCII would need Unicode's tables of cases.
std::string in_case(std::string text, const std::string& name) {
  if (!is_ascii(text)) fail("{} of letters beyond ASCII is not supported", name);
  bool begins = true;
  for (char& c : text) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool upper = name == "upper" || (name != "lower" && begins);
    if (letter) c = static_cast<char>(upper ? c & ~0x20 : c | 0x20);
    begins = name == "title" && !letter;
  }
  return text;
}

bool starts_or_ends(const std::string& text, const Value& part, bool starts) {
  if (part.is_array()) {
    return std::ranges::any_of(part,
                               [&](const Value& p) { return starts_or_ends(text, p, starts); });
  }
  return starts ? text.starts_with(string(part, "startswith"))
                : text.ends_with(string(part, "endswith"));
}

Value string_method(const std::string& text, const std::string& name, const Arguments& arguments) {
  const Value first = arguments.get(0, "");
  const bool strips = name == "strip" || name == "lstrip" || name == "rstrip";
  arguments.check(name, name == "split" || name == "replace" ? 2 : 1);
  if (strips) return strip(text, first, name != "rstrip", name != "lstrip");
  if (name == "startswith" || name == "endswith") {
    return starts_or_ends(text, first, name == "startswith");
  }
  if (name == "split") {
    const Value most = arguments.get(1, "");
    return split(text, first, most.is_number_integer() ? most.get<int64_t>() : -1);
  }
  if (name == "replace") {
    return replace(text, string(first, name), string(arguments.get(1, ""), name));
  }
  if (name == "upper" || name == "lower" || name == "title" || name == "capitalize") {
    return in_case(text, name);
  }
  if (name == "join") return jinja_filter(first, "join", {{text}, {}});
  fail("the method {} of a string is not supported", name);
}

// --- Lists and dicts

Value pairs_of(const Value& dict) {
  if (!dict.is_object()) fail("items needs a dict, not {}", jinja_kind(dict));
  Value pairs = Value::array();
  for (const auto& [key, value] : dict.items()) pairs.push_back(Value::array({key, value}));
  return pairs;
}

Value dict_method(const Value& dict, const std::string& name, const Arguments& arguments) {
  arguments.check(name, name == "get" ? 2 : 0);
  if (name == "items") return pairs_of(dict);
  if (name == "get") {
    Value found = jinja_item(dict, arguments.get(0, ""));
    if (!found.is_discarded()) return found;
    return arguments.list.size() > 1 ? arguments.list[1] : Value();
  }
  Value result = Value::array();
  for (const auto& [key, value] : dict.items())
    result.push_back(name == "keys" ? Value(key) : value);
  if (name == "keys" || name == "values") return result;
  fail("the method {} of a dict is not supported", name);
}

Value join(const Value& list, const Arguments& arguments) {
  const Value between = arguments.get(0, "d"), attribute = arguments.get(1, "attribute");
  std::string text;
  bool first = true;
  for (const Value& item : jinja_items(list)) {
    if (!first && !between.is_discarded()) text += jinja_text(between);
    text += jinja_text(attribute.is_discarded() ? item : jinja_item(item, attribute));
    first = false;
  }
  return text;
}

// "attribute" alone asks whether it is true, with a test behind it whether that holds.
Value select(const Value& list, const Arguments& arguments, bool by_attribute, bool rejects) {
  Value result = Value::array();
  const size_t test = by_attribute ? 1 : 0;
  Arguments of_test;
  for (size_t i = test + 1; i < arguments.list.size(); ++i)
    of_test.list.push_back(arguments.list[i]);
  for (const Value& item : jinja_items(list)) {
    const Value value = by_attribute ? jinja_item(item, arguments.get(0, "")) : item;
    const bool holds = arguments.list.size() > test
                           ? jinja_test(value, string(arguments.list[test], "select"), of_test)
                           : jinja_true(value);
    if (holds != rejects) result.push_back(item);
  }
  return result;
}

Value map(const Value& list, const Arguments& arguments) {
  arguments.check("map", 1, {"attribute"});
  const Value attribute = arguments.named.empty() ? Value() : arguments.named[0].second;
  Value result = Value::array();
  for (const Value& item : jinja_items(list)) {
    result.push_back(attribute.is_null()
                         ? jinja_filter(item, string(arguments.get(0, ""), "map"), {})
                         : jinja_item(item, attribute));
  }
  return result;
}

// As Python's json.dumps(ensure_ascii=False) writes it, on one line.
std::string json_text(const Value& value) {
  if (!value.is_structured()) return value.dump();
  std::string text;
  for (const auto& [key, item] : value.items()) {
    if (!text.empty()) text += ", ";
    if (value.is_object()) text += Value(key).dump() + ": ";
    text += json_text(item);
  }
  return value.is_object() ? "{" + text + "}" : "[" + text + "]";
}

Value default_of(const Value& value, const Arguments& arguments) {
  arguments.check("default", 2, {"default_value", "boolean"});
  const bool otherwise =
      jinja_true(arguments.get(1, "boolean")) ? !jinja_true(value) : value.is_discarded();
  if (!otherwise) return value;
  const Value given = arguments.get(0, "default_value");
  return given.is_discarded() ? Value("") : given;
}

Value end_of(const Value& list, bool first) {
  const std::vector<Value> items = jinja_items(list);
  if (items.empty()) return jinja_undefined();
  return first ? items.front() : items.back();
}

using Filter = std::function<Value(const Value&, const Arguments&)>;

const std::map<std::string, Filter>& filters() {
  static const Filter length = [](const Value& v, const Arguments&) {
    return Value(static_cast<int64_t>(jinja_items(v).size()));
  };
  static const std::map<std::string, Filter> table = {
      {"trim",
       [](const Value& v, const Arguments& a) {
         return strip(jinja_text(v), a.get(0, "chars"), true, true);
       }},
      {"length", length},
      {"count", length},
      {"default", default_of},
      {"d", default_of},
      {"join", join},
      {"map", map},
      {"string", [](const Value& v, const Arguments&) { return jinja_text(v); }},
      {"safe", [](const Value& v, const Arguments&) { return v; }},
      {"first", [](const Value& v, const Arguments&) { return end_of(v, true); }},
      {"last", [](const Value& v, const Arguments&) { return end_of(v, false); }},
      {"items", [](const Value& v,
                   const Arguments&) { return v.is_discarded() ? Value::array() : pairs_of(v); }},
      {"list",
       [](const Value& v, const Arguments&) {
         Value list = Value::array();
         for (const Value& item : jinja_items(v)) list.push_back(item);
         return list;
       }},
      {"replace",
       [](const Value& v, const Arguments& a) {
         return replace(jinja_text(v), string(a.get(0, "old"), "replace"),
                        string(a.get(1, "new"), "replace"));
       }},
      {"tojson",
       [](const Value& v, const Arguments& a) {
         a.check("tojson", 0);
         return json_text(v);
       }},
      {"select", [](const Value& v, const Arguments& a) { return select(v, a, false, false); }},
      {"reject", [](const Value& v, const Arguments& a) { return select(v, a, false, true); }},
      {"selectattr", [](const Value& v, const Arguments& a) { return select(v, a, true, false); }},
      {"rejectattr", [](const Value& v, const Arguments& a) { return select(v, a, true, true); }},
  };
  return table;
}

}  // namespace

JinjaValue jinja_method(const Value& value, const std::string& name, const Arguments& arguments) {
  if (value.is_string()) return string_method(value.get_ref<const std::string&>(), name, arguments);
  if (value.is_object()) return dict_method(value, name, arguments);
  fail("the method {} of {} is not supported", name, jinja_kind(value));
}

JinjaValue jinja_filter(const Value& value, const std::string& name, const Arguments& arguments) {
  if (name == "upper" || name == "lower" || name == "title" || name == "capitalize") {
    return in_case(jinja_text(value), name);
  }
  const auto found = filters().find(name);
  if (found == filters().end()) fail("the filter {} is not supported", name);
  return found->second(value, arguments);
}

bool jinja_test(const Value& value, const std::string& name, const Arguments& arguments) {
  const Value first = arguments.get(0, "");
  if (name == "defined") return !value.is_discarded();
  if (name == "undefined") return value.is_discarded();
  if (name == "none") return value.is_null();
  if (name == "string") return value.is_string();
  if (name == "number") return value.is_number() || value.is_boolean();
  if (name == "integer") return value.is_number_integer();
  if (name == "boolean") return value.is_boolean();
  if (name == "true") return value.is_boolean() && value.get<bool>();
  if (name == "false") return value.is_boolean() && !value.get<bool>();
  if (name == "mapping") return value.is_object();
  const bool sequence = value.is_array() || value.is_object() || value.is_string();
  if (name == "iterable" || name == "sequence") return sequence || value.is_discarded();
  if (name == "equalto" || name == "eq" || name == "sameas") return jinja_equal(value, first);
  if (name == "ne") return !jinja_equal(value, first);
  if (name == "in") return jinja_true(jinja_binary("in", value, first));
  if (name == "odd" || name == "even") {
    return jinja_equal(jinja_binary("%", value, 2), name == "odd" ? 1 : 0);
  }
  if (name == "divisibleby") return jinja_equal(jinja_binary("%", value, first), 0);
  fail("the test {} is not supported", name);
}

}  // namespace qnpu
