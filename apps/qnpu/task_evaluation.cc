#include "apps/qnpu/task_evaluation.h"

#include <algorithm>
#include <cmath>

#include "base/status.h"

namespace qnpu {
namespace {

// Tokens that all sequences begin with, at most those of the query.
int shared_tokens(const TaskItem& item) {
  const std::vector<int32_t>& first = item.sequences.front();
  auto end = first.begin() + item.context;
  for (const std::vector<int32_t>& other : item.sequences) {
    end = std::mismatch(first.begin(), end, other.begin(), other.end()).first;
  }
  return static_cast<int>(end - first.begin());
}

// Of the tokens from `begin` on that are behind the query, the tokens before `begin` being those of
// the last call of `source`.
double likelihood_from(const TaskItem& item, std::span<const int32_t> tokens, int begin,
                       const LogitsSource& source) {
  const int inputs = static_cast<int>(tokens.size()) - 1;  // the last one's successor is not asked
  double sum = 0.0;
  for (; begin < inputs; begin += kLogitsRows) {
    const int end = std::min(begin + kLogitsRows, inputs);
    const auto rows = source.resume(tokens.first(end), begin, /*all_rows=*/true);
    // The row of token t is for token t + 1. Tokens of the query come in only where one of its last
    // characters is part of another token in each choice.
    const int scored = std::clamp(item.context - 1, begin, end);
    sum += log_likelihood(rows.subspan(static_cast<size_t>(scored - begin) * source.vocab),
                          tokens.subspan(scored + 1, end - scored));
  }
  return sum;
}

}  // namespace

void check_items(const Task& task, const LogitsSource& source) {
  for (const TaskItem& item : task.items) {
    for (const auto& sequence : item.sequences) {
      if (sequence.size() - 1 <= source.context) continue;
      fail("{}, line {}: {} tokens are more than the {} positions of {}; shorten the item",
           task.path.string(), item.line, sequence.size() - 1, source.context, source.name);
    }
  }
}

std::vector<double> choice_log_likelihoods(const TaskItem& item, const LogitsSource& source) {
  const int shared = shared_tokens(item);
  std::vector<float> after_shared;  // logits [V] of each choice's next token
  if (shared > 0) {
    const auto query = std::span(item.sequences.front()).first(shared);
    const auto row = source.resume(query, 0, /*all_rows=*/false);
    after_shared.assign(row.begin(), row.end());
  }
  std::vector<double> sums;
  for (const std::vector<int32_t>& tokens : item.sequences) {
    double sum = likelihood_from(item, tokens, shared, source);
    if (shared == item.context) {
      sum += log_likelihood(after_shared, std::span(tokens).subspan(shared, 1));
    }
    sums.push_back(sum);
  }
  return sums;
}

ChoiceAccuracy evaluate_task(const Task& task, const LogitsSource& source, Progress& progress,
                             const ItemSink& on_item) {
  check_items(task, source);
  ChoiceAccuracy accuracy;
  const auto total = static_cast<int64_t>(task.items.size());
  for (const TaskItem& item : task.items) {
    progress.update(task.name + ", items", accuracy.plain.items, total);
    const std::vector<double> sums = choice_log_likelihoods(item, source);
    for (const double sum : sums) {
      if (std::isfinite(sum)) continue;
      fail("the logits of {} are not finite numbers; its weights are damaged", source.name);
    }
    accuracy.add(sums, item.characters, item.gold);
    if (on_item) on_item(item, sums);
  }
  progress.update(task.name + ", items", total, total);
  return accuracy;
}

}  // namespace qnpu
