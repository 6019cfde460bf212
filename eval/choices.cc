#include "eval/choices.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/status.h"
#include "eval/metrics.h"

namespace qnpu {

double log_likelihood(std::span<const float> rows, std::span<const int32_t> targets) {
  if (targets.empty()) return 0.0;
  QNPU_ASSERT(rows.size() % targets.size() == 0);
  const size_t vocab = rows.size() / targets.size();
  double sum = 0.0;
  for (size_t i = 0; i < targets.size(); ++i) {
    sum -= negative_log_likelihood(rows.subspan(i * vocab, vocab), targets[i]);
  }
  return sum;
}

int likeliest(std::span<const double> scores) {
  return static_cast<int>(std::max_element(scores.begin(), scores.end()) - scores.begin());
}

double Accuracy::share() const { return static_cast<double>(right) / static_cast<double>(items); }

double Accuracy::standard_error() const {
  const double p = share();
  return std::sqrt(p * (1.0 - p) / static_cast<double>(items - 1));
}

void ChoiceAccuracy::add(std::span<const double> log_likelihoods,
                         std::span<const int64_t> characters, int gold) {
  QNPU_ASSERT(log_likelihoods.size() == characters.size());
  std::vector<double> per_character(log_likelihoods.begin(), log_likelihoods.end());
  for (size_t i = 0; i < per_character.size(); ++i)
    per_character[i] /= static_cast<double>(characters[i]);
  plain.right += likeliest(log_likelihoods) == gold;
  normalised.right += likeliest(per_character) == gold;
  ++plain.items;
  ++normalised.items;
}

}  // namespace qnpu
