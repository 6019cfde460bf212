// What the values of a chat template can do: as in Python, for strings, numbers, lists and dicts.
// Everything here throws Error (a part of a sentence) for what is not supported or makes no sense.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/jinja/parser.h"

namespace qnpu {

inline JinjaValue jinja_undefined() { return JinjaValue(JinjaValue::value_t::discarded); }

bool jinja_true(const JinjaValue& value);
bool jinja_equal(const JinjaValue& a, const JinjaValue& b);
std::string jinja_text(const JinjaValue& value);  // what is written
std::string jinja_kind(const JinjaValue& value);  // for sentences: "a list"

// Items of a list, keys of a dict, characters of a string; none of an undefined value.
std::vector<JinjaValue> jinja_items(const JinjaValue& value);

// Undefined where there is no such item.
JinjaValue jinja_item(const JinjaValue& value, const JinjaValue& key);
JinjaValue jinja_slice(const JinjaValue& value, const JinjaValue& from, const JinjaValue& to,
                       const JinjaValue& step);

// `sign` is one of JinjaExpression's, but for "and" and "or".
JinjaValue jinja_binary(const std::string& sign, const JinjaValue& a, const JinjaValue& b);

struct JinjaArguments {
  std::vector<JinjaValue> list;
  std::vector<std::pair<std::string, JinjaValue>> named;

  // The one at `index`, or the one of that name; undefined if neither is given.
  JinjaValue get(size_t index, std::string_view name) const;
  void check(std::string_view of, size_t most, std::vector<std::string_view> names = {}) const;
};

JinjaValue jinja_method(const JinjaValue& value, const std::string& name,
                        const JinjaArguments& arguments);
JinjaValue jinja_filter(const JinjaValue& value, const std::string& name,
                        const JinjaArguments& arguments);
bool jinja_test(const JinjaValue& value, const std::string& name, const JinjaArguments& arguments);

}  // namespace qnpu
