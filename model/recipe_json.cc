// Recipes as JSON: a reader and a writer that walk the same lists of fields (recipe_fields.h).
#include <nlohmann/json.hpp>
#include <set>
#include <span>

#include "base/status.h"
#include "io/files.h"
#include "model/budget.h"
#include "model/recipe.h"
#include "model/recipe_fields.h"
#include "model/stored_recipe.h"

namespace qnpu {
namespace {

using nlohmann::json;
using Words = std::span<const char* const>;

constexpr const char* kObservers[] = {"auto", "minmax", "percentile", "mean3sigma", "mse"};

enum class UnknownKeys { kRefused, kIgnored };

// Reads an object's fields into variables; what is absent keeps its default.
class Reader {
 public:
  Reader(const json& j, std::string where, UnknownKeys unknown)
      : j_(j), where_(std::move(where)), unknown_(unknown) {
    if (!j.is_object()) fail("{}: a JSON object is expected, not {}", where_, j.dump());
  }

  void number(const char* key, double& value, double low, double high) {
    const json* found = find(key);
    if (found == nullptr) return;
    if (!found->is_number() || !(found->get<double>() >= low && found->get<double>() <= high)) {
      fail("{}: '{}' must be a number from {} to {}, not {}", where_, key, low, high,
           found->dump());
    }
    value = found->get<double>();
  }
  void number(const char* key, int& value, int low, int high) {
    const json* found = find(key);
    if (found == nullptr) return;
    if (!found->is_number_integer() || *found < low || *found > high) {
      fail("{}: '{}' must be an integer from {} to {}, not {}", where_, key, low, high,
           found->dump());
    }
    value = found->get<int>();
  }
  void flag(const char* key, bool& value) {
    const json* found = find(key);
    if (found == nullptr) return;
    if (!found->is_boolean()) {
      fail("{}: '{}' must be true or false, not {}", where_, key, found->dump());
    }
    value = found->get<bool>();
  }
  void text(const char* key, std::string& value) {
    const json* found = find(key);
    if (found == nullptr) return;
    if (!found->is_string()) fail("{}: '{}' must be a string", where_, key);
    value = found->get<std::string>();
  }
  template <typename Enum>
  void word(const char* key, Enum& value, Words words) {
    const json* found = find(key);
    if (found == nullptr) return;
    for (size_t i = 0; i < words.size(); ++i) {
      if (found->is_string() && found->get<std::string>() == words[i]) {
        value = static_cast<Enum>(i);
        return;
      }
    }
    std::string list;
    for (const char* w : words) list += fmt::format("{}'{}'", list.empty() ? "" : ", ", w);
    fail("{}: '{}' is {}, but must be one of {}", where_, key, found->dump(), list);
  }
  template <typename Section>
  void section(const char* key, std::optional<Section>& value) {
    const json* found = find(key);
    if (found == nullptr) return;
    Reader inner(*found, fmt::format("{} ({})", where_, key), unknown_);
    fields(inner, value.emplace());
    inner.refuse_unknown_keys();
  }
  const json* find(const char* key) {
    known_.insert(key);
    const auto found = j_.find(key);
    return found == j_.end() ? nullptr : &*found;
  }
  void refuse_unknown_keys() const {
    if (unknown_ == UnknownKeys::kIgnored) return;
    for (const auto& [key, value] : j_.items()) {
      if (known_.count(key) == 0) fail("{}: the key '{}' is not known", where_, key);
    }
  }
  const std::string& where() const { return where_; }

 private:
  const json& j_;
  std::string where_;
  UnknownKeys unknown_;
  std::set<std::string> known_;
};

// Writes the same fields.
class Writer {
 public:
  template <typename T>
  void number(const char* key, T& value, T, T) {
    j[key] = value;
  }
  void flag(const char* key, bool& value) { j[key] = value; }
  void text(const char* key, std::string& value) { j[key] = value; }
  template <typename Enum>
  void word(const char* key, Enum& value, Words words) {
    j[key] = words[static_cast<size_t>(value)];
  }
  template <typename Section>
  void section(const char* key, std::optional<Section>& value) {
    if (!value) return;
    Writer inner;
    fields(inner, *value);
    j[key] = inner.j;
  }
  json j = json::object();
};

Rule rule_from_json(const json& j, const std::string& where, UnknownKeys unknown) {
  Reader reader(j, where, unknown);
  Rule rule;
  reader.text("match", rule.match);
  if (rule.match.empty()) {
    fail("{}: 'match' (a site name, * for any characters) is missing", where);
  }
  const auto flag_if_given = [&](const char* key) {
    bool value = false;
    reader.flag(key, value);
    return j.contains(key) ? int{value} : -1;
  };
  if (const json* bits = reader.find("bitwidth")) {
    if (!bits->is_number_integer() || (*bits != 4 && *bits != 8 && *bits != 16)) {
      fail("{}: 'bitwidth' must be 4, 8 or 16, not {}", where, bits->dump());
    }
    rule.bitwidth = bits->get<int>();
  }
  rule.symmetric = flag_if_given("symmetric");
  reader.word("observer", rule.observer, kObservers);
  if (const json* p = reader.find("percentile")) {
    if (!p->is_number() || !(p->get<double>() > 50.0 && p->get<double>() <= 100.0)) {
      fail("{}: 'percentile' must be above 50 and at most 100, not {}", where, p->dump());
    }
    rule.percentile = p->get<double>();
  }
  if (const json* size = reader.find("block_size")) {
    if (!size->is_number_integer() || (*size != 0 && (*size < 8 || *size > 1024))) {
      fail("{}: 'block_size' must be an integer from 8 to 1024, or 0 (none), not {}", where,
           size->dump());
    }
    rule.block_size = size->get<int>();
  }
  rule.narrow_range = flag_if_given("narrow_range");
  reader.refuse_unknown_keys();
  return rule;
}

json rule_to_json(const Rule& rule) {
  json j = {{"match", rule.match}};
  if (rule.bitwidth != 0) j["bitwidth"] = rule.bitwidth;
  if (rule.symmetric >= 0) j["symmetric"] = rule.symmetric == 1;
  if (rule.observer >= 0) j["observer"] = kObservers[rule.observer];
  if (rule.percentile != 0.0) j["percentile"] = rule.percentile;
  if (rule.block_size >= 0) j["block_size"] = rule.block_size;
  if (rule.narrow_range >= 0) j["narrow_range"] = rule.narrow_range == 1;
  return j;
}

Recipe read_recipe(const json& j, const std::string& where, UnknownKeys unknown) {
  Reader reader(j, where, unknown);
  Recipe recipe;
  reader.text("name", recipe.name);
  if (recipe.name.empty()) fail("{}: 'name' is missing", where);
  fields(reader, recipe);
  reader.text("budget", recipe.budget);
  if (!recipe.budget.empty()) parse_budget(recipe.budget);
  if (const json* rotation = reader.find("rotation")) {
    Reader inner(*rotation, where + " (rotation)", unknown);
    fields(inner, RotationFields{recipe.r1, recipe.r2, recipe.r3, recipe.r4});
    inner.refuse_unknown_keys();
  }
  if (const json* rules = reader.find("rules")) {
    if (!rules->is_array()) fail("{}: 'rules' must be a list", where);
    for (size_t i = 0; i < rules->size(); ++i) {
      recipe.rules.push_back(
          rule_from_json((*rules)[i], fmt::format("{} (rule {})", where, i + 1), unknown));
    }
  }
  reader.refuse_unknown_keys();
  return recipe;
}

}  // namespace

const char* rotation_name(Rotation rotation) { return kRotations[static_cast<int>(rotation)]; }
const char* observer_name(Observer observer) { return kObservers[static_cast<int>(observer)]; }
Observer observer_from_name(const std::string& name) {
  for (size_t i = 0; i < std::size(kObservers); ++i) {
    if (name == kObservers[i]) return static_cast<Observer>(i);
  }
  fail("an observer '{}' is not known; quantize again", name);
}

Recipe recipe_from_json(const json& j, const std::string& where) {
  return read_recipe(j, where, UnknownKeys::kRefused);
}

Recipe stored_recipe(const json& j, const std::string& where) {
  try {
    return read_recipe(j, where, UnknownKeys::kIgnored);
  } catch (const Error& error) {
    fail("{}; what made this artifact is newer: use that program, or quantize again", error.what());
  }
}

Recipe load_recipe(const std::filesystem::path& path) {
  return recipe_from_json(read_json(path), path.string());
}

json to_json(Recipe recipe) {
  Writer writer;
  writer.text("name", recipe.name);
  fields(writer, recipe);
  if (!recipe.budget.empty()) writer.text("budget", recipe.budget);
  Writer rotation;
  fields(rotation, RotationFields{recipe.r1, recipe.r2, recipe.r3, recipe.r4});
  writer.j["rotation"] = rotation.j;
  json rules = json::array();
  for (const Rule& rule : recipe.rules) rules.push_back(rule_to_json(rule));
  writer.j["rules"] = rules;
  return writer.j;
}

}  // namespace qnpu
