// A recipe: how a model shall be quantized, as data. JSON:
//
//   {"name": "w4a8kv8", "description": "...",
//    "rotation": {"r1": "hadamard", "r2": "hadamard"},          // or "random", or "none"
//    "rules": [{"match": "layers.*.weight", "bitwidth": 4, "observer": "mse"}, ...]}
//
// `match` is a glob over site names (`*` stands for any run of characters); rules are tried in
// order and the last that matches a site and sets a property wins. An unknown key, a value that is
// not allowed, or a rule that matches no site is an Error that names it.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace qnpu {

// How a site's range is chosen from what was observed.
enum class Observer {
  kAuto,  // rotated and at most 4 bits: mean3sigma; otherwise minmax (method.md 1.6)
  kMinMax,
  kPercentile,  // `percentile` of the values on each side
  kMean3Sigma,  // max |mean -+ 3 sigma|
  kMse,         // the clip that minimises the mean squared error
};

enum class Rotation { kNone, kHadamard, kRandom };

// What is wished of a site; the numbers that were chosen for it are QParams.
struct QuantSpec {
  int bitwidth = 8;
  bool symmetric = true;
  Observer observer = Observer::kAuto;
  double percentile = 99.99;
  bool operator==(const QuantSpec&) const = default;
};

struct Rule {
  std::string match;
  int bitwidth = 0;         // 0: not set by this rule
  int symmetric = -1;       // -1: not set
  int observer = -1;        // -1: not set, else an Observer
  double percentile = 0.0;  // 0: not set
};

struct Recipe {
  std::string name;
  std::string description;
  Rotation r1 = Rotation::kNone;
  Rotation r2 = Rotation::kNone;
  std::vector<Rule> rules;
};

Recipe load_recipe(const std::filesystem::path& path);
Recipe recipe_from_json(const nlohmann::json& json, const std::string& where);
nlohmann::json to_json(const Recipe& recipe);

const char* observer_name(Observer observer);
Observer observer_from_name(const std::string& name);  // Error on another name
const char* rotation_name(Rotation rotation);

// `*` matches any run of characters, dots included; everything else is literal.
bool glob_match(const std::string& pattern, const std::string& name);

// Applies the rules to `spec` (the site's default). Returns the index of the last rule that changed
// something, or -1; sets `used[i]` for every rule that matched.
int apply_rules(const Recipe& recipe, const std::string& site, QuantSpec& spec,
                std::vector<bool>& used);

}  // namespace qnpu
