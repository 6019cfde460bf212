#include "io/jinja/values.h"

#include <algorithm>
#include <cmath>
#include <compare>
#include <functional>

#include "base/status.h"
#include "io/unicode.h"

namespace qnpu {

std::string jinja_kind(const JinjaValue& value) {
  if (value.is_discarded()) return "an undefined value";
  if (value.is_null()) return "none";
  if (value.is_array()) return "a list";
  if (value.is_object()) return "a dict";
  return fmt::format("a {}", value.type_name());  // a string, number or boolean
}

namespace {

bool is_countable(const JinjaValue& value) {
  return value.is_number_integer() || value.is_boolean();
}

int64_t integer(const JinjaValue& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (!value.is_number_integer())
    fail("{} stands where a whole number is needed", jinja_kind(value));
  return value.get<int64_t>();
}

double number(const JinjaValue& value) {
  if (is_countable(value)) return static_cast<double>(integer(value));
  if (!value.is_number()) fail("{} stands where a number is needed", jinja_kind(value));
  return value.get<double>();
}

std::vector<std::string> characters(const std::string& text) {
  std::vector<std::string> result;
  for (size_t i = 0; i < text.size();) {
    const int length = utf8_at(text, i).length;
    result.push_back(text.substr(i, length));
    i += length;
  }
  return result;
}

JinjaValue list_of(const std::vector<JinjaValue>& items) {
  JinjaValue list = JinjaValue::array();
  for (const JinjaValue& item : items) list.push_back(item);
  return list;
}

bool contains(const JinjaValue& whole, const JinjaValue& part) {
  if (whole.is_string()) {
    if (!part.is_string()) fail("{} is looked for in a string", jinja_kind(part));
    return whole.get_ref<const std::string&>().find(part.get_ref<const std::string&>()) !=
           std::string::npos;
  }
  const auto items = jinja_items(whole);
  return std::ranges::any_of(items, [&](const JinjaValue& i) { return jinja_equal(i, part); });
}

bool is_less(const JinjaValue& a, const JinjaValue& b) {
  if (a.is_string() && b.is_string()) {
    return a.get_ref<const std::string&>() < b.get_ref<const std::string&>();
  }
  return number(a) < number(b);
}

JinjaValue sum(const JinjaValue& a, const JinjaValue& b) {
  if (a.is_string() && b.is_string()) return a.get<std::string>() + b.get<std::string>();
  if (a.is_array() && b.is_array()) {
    JinjaValue whole = a;
    whole.insert(whole.end(), b.begin(), b.end());
    return whole;
  }
  if (is_countable(a) && is_countable(b)) return integer(a) + integer(b);
  if (a.is_number() && b.is_number()) return number(a) + number(b);
  fail("{} and {} cannot be added", jinja_kind(a), jinja_kind(b));
}

JinjaValue product(const JinjaValue& a, const JinjaValue& b) {
  if (is_countable(a) && is_countable(b)) return integer(a) * integer(b);
  if (!a.is_string()) return number(a) * number(b);
  const int64_t times = std::max<int64_t>(integer(b), 0);
  const auto& text = a.get_ref<const std::string&>();
  if (times * static_cast<int64_t>(text.size()) > 1 << 20) fail("a string is repeated too often");
  std::string result;
  for (int64_t i = 0; i < times; ++i) result += text;
  return result;
}

// Rounded down, as in Python.
JinjaValue quotient(const std::string& sign, const JinjaValue& a, const JinjaValue& b) {
  if (number(b) == 0) fail("a number is divided by 0");
  if (sign == "/") return number(a) / number(b);
  const int64_t x = integer(a), y = integer(b);
  const int64_t floor = x / y - (x % y != 0 && (x < 0) != (y < 0));
  return sign == "//" ? floor : x - floor * y;
}

}  // namespace

bool jinja_true(const JinjaValue& value) {
  if (value.is_discarded() || value.is_null()) return false;
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return number(value) != 0;
  if (value.is_string()) return !value.get_ref<const std::string&>().empty();
  return !value.empty();
}

bool jinja_equal(const JinjaValue& a, const JinjaValue& b) {
  if (a.is_discarded() || b.is_discarded()) return a.is_discarded() && b.is_discarded();
  const bool numbers = (a.is_number() || a.is_boolean()) && (b.is_number() || b.is_boolean());
  return numbers ? number(a) == number(b) : a == b;
}

std::string jinja_text(const JinjaValue& value) {
  if (value.is_discarded()) return "";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_null()) return "None";
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_number_integer()) return std::to_string(value.get<int64_t>());
  fail("{} is to be written as text, which is not supported", jinja_kind(value));
}

std::vector<JinjaValue> jinja_items(const JinjaValue& value) {
  std::vector<JinjaValue> items;
  if (value.is_array()) {
    items.assign(value.begin(), value.end());
  } else if (value.is_object()) {
    for (const auto& [key, unused] : value.items()) items.emplace_back(key);
  } else if (value.is_string()) {
    for (std::string& c : characters(value.get<std::string>())) items.emplace_back(std::move(c));
  } else if (!value.is_discarded()) {
    fail("{} has no items", jinja_kind(value));
  }
  return items;
}

JinjaValue jinja_item(const JinjaValue& value, const JinjaValue& key) {
  if (value.is_discarded()) fail("an item of an undefined value is asked for");
  if (value.is_object()) {
    if (!key.is_string()) return jinja_undefined();
    const auto found = value.find(key.get<std::string>());
    return found == value.end() ? jinja_undefined() : *found;
  }
  if (!key.is_number_integer() || !(value.is_array() || value.is_string()))
    return jinja_undefined();
  const std::vector<JinjaValue> items = jinja_items(value);
  const auto size = static_cast<int64_t>(items.size());
  const int64_t index = integer(key) < 0 ? integer(key) + size : integer(key);
  return index < 0 || index >= size ? jinja_undefined() : items[static_cast<size_t>(index)];
}

JinjaValue jinja_slice(const JinjaValue& value, const JinjaValue& from, const JinjaValue& to,
                       const JinjaValue& step) {
  if (!value.is_array() && !value.is_string()) fail("{} cannot be cut", jinja_kind(value));
  const std::vector<JinjaValue> items = jinja_items(value);
  const auto size = static_cast<int64_t>(items.size());
  const auto given = [](const JinjaValue& v) { return !v.is_null(); };
  const int64_t stride = given(step) ? integer(step) : 1;
  if (stride == 0) fail("a list is cut in steps of 0");
  const int64_t low = stride > 0 ? 0 : -1, high = stride > 0 ? size : size - 1;
  const auto place = [&](const JinjaValue& v, int64_t otherwise) {
    if (!given(v)) return otherwise;
    return std::clamp(integer(v) < 0 ? integer(v) + size : integer(v), low, high);
  };
  const int64_t end = place(to, stride > 0 ? high : low);
  std::vector<JinjaValue> cut;
  for (int64_t i = place(from, stride > 0 ? low : high); stride > 0 ? i < end : i > end;
       i += stride) {
    cut.push_back(items[static_cast<size_t>(i)]);
  }
  if (value.is_array()) return list_of(cut);
  std::string text;
  for (const JinjaValue& c : cut) text += c.get_ref<const std::string&>();
  return text;
}

JinjaValue jinja_binary(const std::string& sign, const JinjaValue& a, const JinjaValue& b) {
  if (sign == "==") return jinja_equal(a, b);
  if (sign == "!=") return !jinja_equal(a, b);
  if (sign == "in") return contains(b, a);
  if (sign == "not in") return !contains(b, a);
  if (sign == "~") return jinja_text(a) + jinja_text(b);
  if (sign == "<") return is_less(a, b);
  if (sign == ">") return is_less(b, a);
  if (sign == "<=") return !is_less(b, a);
  if (sign == ">=") return !is_less(a, b);
  if (sign == "+") return sum(a, b);
  if (sign == "-") {
    if (is_countable(a) && is_countable(b)) return integer(a) - integer(b);
    return number(a) - number(b);
  }
  if (sign == "*") return product(a, b);
  return quotient(sign, a, b);
}

JinjaValue JinjaArguments::get(size_t index, std::string_view name) const {
  if (index < list.size()) return list[index];
  for (const auto& [key, value] : named) {
    if (key == name) return value;
  }
  return jinja_undefined();
}

void JinjaArguments::check(std::string_view of, size_t most,
                           std::vector<std::string_view> names) const {
  const auto known = [&](const auto& argument) {
    return std::ranges::find(names, argument.first) != names.end();
  };
  if (list.size() > most || !std::ranges::all_of(named, known)) {
    fail("these arguments of {} are not supported", of);
  }
}

}  // namespace qnpu
