#include "apps/qnpu/evaluation.h"

#include <algorithm>
#include <cmath>

#include "base/clock.h"
#include "base/status.h"

namespace qnpu {
namespace {

void score(std::span<const float> tested, std::span<const float> reference,
           std::span<const int32_t> targets, Evaluation& result) {
  const size_t vocab = tested.size() / targets.size();
  for (size_t i = 0; i < targets.size(); ++i) {
    const auto row = tested.subspan(i * vocab, vocab);
    result.tested.add(row, targets[i]);
    if (reference.empty()) continue;
    const auto reference_row = reference.subspan(i * vocab, vocab);
    result.reference.add(reference_row, targets[i]);
    result.divergence.add(reference_row, row);
  }
}

void check_finite(const LikelihoodSum& sum, const LogitsSource& source) {
  if (std::isfinite(sum.nll)) return;
  fail("the logits of {} are not finite numbers; its weights are damaged", source.name);
}

void check_vocabularies(const LogitsSource& tested, const LogitsSource& reference) {
  if (reference.vocab == tested.vocab) return;
  fail("{} has {} tokens in its vocabulary and {} has {}; compare models of one vocabulary",
       tested.name, tested.vocab, reference.name, reference.vocab);
}

}  // namespace

Evaluation evaluate(const Windows& windows, const LogitsSource& tested,
                    const LogitsSource* reference, LogitsWriter* writer, Progress& progress) {
  if (reference) check_vocabularies(tested, *reference);
  Evaluation result;
  const int64_t total = int64_t{windows.count} * (windows.length - 1);
  for (int window = 0; window < windows.count; ++window) {
    const auto inputs = windows.inputs(window);
    const auto targets = windows.targets(window);
    for (int begin = 0; begin < inputs.size(); begin += kLogitsRows) {
      const int count = std::min<int>(kLogitsRows, inputs.size() - begin);
      progress.update("evaluate, tokens", result.tested.tokens, total);
      const auto start = Clock::now();
      const auto rows = tested.rows(window, inputs, begin, count);
      result.model_seconds += seconds_since(start);
      std::span<const float> reference_rows;
      if (reference) reference_rows = reference->rows(window, inputs, begin, count);
      score(rows, reference_rows, targets.subspan(begin, count), result);
      check_finite(result.tested, tested);
      if (reference) check_finite(result.reference, *reference);
      if (writer) writer->write(rows);
    }
  }
  progress.update("evaluate, tokens", total, total);
  return result;
}

}  // namespace qnpu
