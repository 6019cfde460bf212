#include "model/recipe.h"

#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "base/status.h"
#include "io/files.h"

namespace qnpu {
namespace {

using nlohmann::json;

constexpr std::array<const char*, 5> kObservers = {"auto", "minmax", "percentile", "mean3sigma",
                                                   "mse"};
constexpr std::array<const char*, 3> kRotations = {"none", "hadamard", "random"};

template <size_t N>
int index_of(const std::array<const char*, N>& names, const json& value, const char* key,
             const std::string& where) {
  for (size_t i = 0; i < N; ++i) {
    if (value.is_string() && value.get<std::string>() == names[i]) return static_cast<int>(i);
  }
  std::string list;
  for (const char* name : names) list += fmt::format("{}'{}'", list.empty() ? "" : ", ", name);
  fail("{}: '{}' is {}, but must be one of {}", where, key, value.dump(), list);
}

void refuse_unknown_keys(const json& j, const std::set<std::string>& known,
                         const std::string& where) {
  if (!j.is_object()) fail("{}: a JSON object is expected, not {}", where, j.dump());
  for (const auto& [key, value] : j.items()) {
    if (known.count(key) == 0) fail("{}: the key '{}' is not known", where, key);
  }
}

Rule rule_from_json(const json& j, const std::string& where) {
  refuse_unknown_keys(j, {"match", "bitwidth", "symmetric", "observer", "percentile"}, where);
  Rule rule;
  if (!j.contains("match") || !j.at("match").is_string()) {
    fail("{}: 'match' (a site name, * for any characters) is missing", where);
  }
  rule.match = j.at("match").get<std::string>();
  if (j.contains("bitwidth")) {
    const json& bits = j.at("bitwidth");
    if (!bits.is_number_integer() || (bits != 4 && bits != 8 && bits != 16)) {
      fail("{}: 'bitwidth' must be 4, 8 or 16, not {}", where, bits.dump());
    }
    rule.bitwidth = bits.get<int>();
  }
  if (j.contains("symmetric")) {
    if (!j.at("symmetric").is_boolean()) fail("{}: 'symmetric' must be true or false", where);
    rule.symmetric = j.at("symmetric").get<bool>() ? 1 : 0;
  }
  if (j.contains("observer")) {
    rule.observer = index_of(kObservers, j.at("observer"), "observer", where);
  }
  if (j.contains("percentile")) {
    const json& p = j.at("percentile");
    if (!p.is_number() || !(p.get<double>() > 50.0 && p.get<double>() <= 100.0)) {
      fail("{}: 'percentile' must be above 50 and at most 100, not {}", where, p.dump());
    }
    rule.percentile = p.get<double>();
  }
  return rule;
}

json rule_to_json(const Rule& rule) {
  json j = {{"match", rule.match}};
  if (rule.bitwidth != 0) j["bitwidth"] = rule.bitwidth;
  if (rule.symmetric >= 0) j["symmetric"] = rule.symmetric == 1;
  if (rule.observer >= 0) j["observer"] = kObservers[rule.observer];
  if (rule.percentile != 0.0) j["percentile"] = rule.percentile;
  return j;
}

}  // namespace

const char* observer_name(Observer observer) { return kObservers[static_cast<int>(observer)]; }
Observer observer_from_name(const std::string& name) {
  return static_cast<Observer>(index_of(kObservers, name, "observer", "site"));
}
const char* rotation_name(Rotation rotation) { return kRotations[static_cast<int>(rotation)]; }

Recipe recipe_from_json(const json& j, const std::string& where) {
  refuse_unknown_keys(j, {"name", "description", "rotation", "rules"}, where);
  Recipe recipe;
  if (!j.contains("name") || !j.at("name").is_string()) fail("{}: 'name' is missing", where);
  recipe.name = j.at("name").get<std::string>();
  if (j.contains("description")) {
    if (!j.at("description").is_string()) fail("{}: 'description' must be a string", where);
    recipe.description = j.at("description").get<std::string>();
  }
  if (j.contains("rotation")) {
    const json& rotation = j.at("rotation");
    refuse_unknown_keys(rotation, {"r1", "r2"}, where + " (rotation)");
    if (rotation.contains("r1")) {
      recipe.r1 = static_cast<Rotation>(index_of(kRotations, rotation.at("r1"), "r1", where));
    }
    if (rotation.contains("r2")) {
      recipe.r2 = static_cast<Rotation>(index_of(kRotations, rotation.at("r2"), "r2", where));
    }
  }
  if (j.contains("rules")) {
    if (!j.at("rules").is_array()) fail("{}: 'rules' must be a list", where);
    for (size_t i = 0; i < j.at("rules").size(); ++i) {
      recipe.rules.push_back(
          rule_from_json(j.at("rules")[i], fmt::format("{} (rule {})", where, i + 1)));
    }
  }
  return recipe;
}

Recipe load_recipe(const std::filesystem::path& path) {
  return recipe_from_json(read_json(path), path.string());
}

json to_json(const Recipe& recipe) {
  json rules = json::array();
  for (const Rule& rule : recipe.rules) rules.push_back(rule_to_json(rule));
  return {{"name", recipe.name},
          {"description", recipe.description},
          {"rotation", {{"r1", rotation_name(recipe.r1)}, {"r2", rotation_name(recipe.r2)}}},
          {"rules", rules}};
}

bool glob_match(const std::string& pattern, const std::string& name) {
  size_t p = 0, n = 0, star = std::string::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p;
      ++n;
    } else if (star != std::string::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

int apply_rules(const Recipe& recipe, const std::string& site, QuantSpec& spec,
                std::vector<bool>& used) {
  int decided = -1;
  for (size_t i = 0; i < recipe.rules.size(); ++i) {
    const Rule& rule = recipe.rules[i];
    if (!glob_match(rule.match, site)) continue;
    used[i] = true;
    decided = static_cast<int>(i);
    if (rule.bitwidth != 0) spec.bitwidth = rule.bitwidth;
    if (rule.symmetric >= 0) spec.symmetric = rule.symmetric == 1;
    if (rule.observer >= 0) spec.observer = static_cast<Observer>(rule.observer);
    if (rule.percentile != 0.0) spec.percentile = rule.percentile;
  }
  return decided;
}

}  // namespace qnpu
