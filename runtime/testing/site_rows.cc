#include "runtime/testing/site_rows.h"

#include <algorithm>

#include "base/status.h"

namespace qnpu::testing {
namespace {

class Reader {
 public:
  Reader(const Graph& graph, const SiteValues& values)
      : graph_(graph), values_(values), site_(graph.site(values.site)) {}

  std::vector<int16_t> row(int token) const {
    std::vector<int16_t> out;
    const int64_t position = values_.position + token;
    switch (site_.role) {
      case Role::kScores:
        for (int64_t h = 0; h < graph_.config.num_heads; ++h) {
          const int64_t start = (h * values_.tokens + token) * values_.row_stride;
          for (int64_t p = 0; p <= position; ++p) out.push_back(at(start + p));
        }
        break;
      case Role::kVCache:
        for (int64_t c = 0; c < site_.cols; ++c)
          out.push_back(at(c * values_.row_stride + position));
        break;
      default: {
        const int64_t r = site_.role == Role::kKCache ? position : token;
        for (int64_t c = 0; c < site_.cols; ++c) out.push_back(at(r * values_.row_stride + c));
      }
    }
    return out;
  }

 private:
  int16_t at(int64_t index) const {
    return bitwidth(site_.qparams.dtype) <= 8 ? static_cast<const int8_t*>(values_.data)[index]
                                              : static_cast<const int16_t*>(values_.data)[index];
  }
  const Graph& graph_;
  const SiteValues& values_;
  const Site& site_;
};

}  // namespace

void append_rows(const Graph& graph, const SiteValues& values, SiteRows& rows) {
  const Reader reader(graph, values);
  for (int t = 0; t < values.tokens; ++t) {
    rows[{values.site, values.position + t}] = reader.row(t);
  }
}

SiteRows run_and_record(Session& session, std::span<const int32_t> tokens, int piece) {
  SiteRows rows;
  session.set_trace([&](const SiteValues& values) { append_rows(session.graph(), values, rows); });
  while (!tokens.empty()) {
    const size_t count = std::min(tokens.size(), static_cast<size_t>(piece));
    session.run(tokens.first(count), /*all_rows=*/true);
    tokens = tokens.subspan(count);
  }
  session.set_trace({});
  return rows;
}

int64_t count_numbers(const SiteRows& rows) {
  int64_t count = 0;
  for (const auto& [key, row] : rows) count += static_cast<int64_t>(row.size());
  return count;
}

std::string first_difference(const Graph& graph, const SiteRows& a, const SiteRows& b) {
  if (a.size() != b.size()) return fmt::format("{} rows against {}", a.size(), b.size());
  const auto [x, y] = std::mismatch(a.begin(), a.end(), b.begin());
  if (x == a.end()) return "";
  return fmt::format("{} at position {}", graph.site(x->first.first).name, x->first.second);
}

}  // namespace qnpu::testing
