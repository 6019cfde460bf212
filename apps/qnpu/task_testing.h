// For tests: log-likelihoods without anything shared or kept, to hold the others against.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "apps/qnpu/logits_source.h"
#include "apps/qnpu/tasks.h"

namespace qnpu {

// Each sequence as a window of its own, from an empty cache; softmax in long double.
inline std::vector<double> log_likelihoods_from_scratch(const TaskItem& item,
                                                        const LogitsSource& source) {
  std::vector<double> sums;
  for (const std::vector<int32_t>& tokens : item.sequences) {
    const int inputs = static_cast<int>(tokens.size()) - 1;
    long double sum = 0;
    for (int begin = 0; begin < inputs; begin += kLogitsRows) {
      const int count = std::min(kLogitsRows, inputs - begin);
      const auto rows = source.rows(0, std::span(tokens).first(inputs), begin, count);
      for (int i = 0; i < count; ++i) {
        if (begin + i + 1 < item.context) continue;
        const auto row = rows.subspan(static_cast<size_t>(i) * source.vocab, source.vocab);
        long double exponentials = 0;
        for (const float x : row) exponentials += std::exp(static_cast<long double>(x));
        sum += row[tokens[begin + i + 1]] - std::log(exponentials);
      }
    }
    sums.push_back(static_cast<double>(sum));
  }
  return sums;
}

}  // namespace qnpu
