#include "model/recipe.h"

namespace qnpu {

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
    if (rule.block_size >= 0) spec.block_size = rule.block_size;
    if (rule.narrow_range >= 0) spec.narrow_range = rule.narrow_range == 1;
  }
  return decided;
}

}  // namespace qnpu
