#include "server/logprobs.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace qnpu::server {

LogSoftmax::LogSoftmax(double scale) : scale_(scale), exp_(1 << 16) {
  for (size_t d = 0; d < exp_.size(); ++d) exp_[d] = std::exp(-scale * static_cast<double>(d));
}

double LogSoftmax::log_sum(std::span<const int16_t> row) const {
  const int largest = *std::max_element(row.begin(), row.end());
  double sum = 0.0;
  for (const int16_t logit : row) sum += exp_[static_cast<size_t>(largest - logit)];
  return scale_ * largest + std::log(sum);
}

void LogSoftmax::describe(std::span<const int16_t> row, int top, TokenOutput& output) const {
  const double sum = log_sum(row);
  output.logprob = logprob(row[static_cast<size_t>(output.token)], sum);
  const size_t count = std::min(static_cast<size_t>(top), row.size());
  if (count == 0) return;
  std::vector<int32_t> ids(row.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto likelier = [&](int32_t a, int32_t b) {
    const int16_t x = row[static_cast<size_t>(a)], y = row[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  const auto end = ids.begin() + static_cast<std::ptrdiff_t>(count);
  std::partial_sort(ids.begin(), end, ids.end(), likelier);
  if (std::find(ids.begin(), end, output.token) == end) ids[count] = output.token;
  for (size_t i = 0; i <= count && i < ids.size(); ++i) {
    if (i == count && ids[i] != output.token) break;
    output.top.push_back({ids[i], logprob(row[static_cast<size_t>(ids[i])], sum)});
  }
}

}  // namespace qnpu::server
