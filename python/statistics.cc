#include "python/statistics.h"

#include <algorithm>
#include <cstring>

namespace qnpu::python {
namespace {

int64_t zero_of(const Site& site) {
  return site.qparams.zero_point.empty() ? 0 : site.qparams.zero_point[0];
}

// Calls visit(pointer, count) for each run of neighbours that tokens can see.
template <typename T, typename Visit>
void for_visible(const Graph& graph, const SiteValues& v, Visit visit) {
  const Site& site = graph.site(v.site);
  const T* data = static_cast<const T*>(v.data);
  switch (site.role) {
    case Role::kScores:
      for (int64_t h = 0; h < graph.config.num_heads; ++h) {
        for (int64_t t = 0; t < v.tokens; ++t) {
          visit(data + (h * v.tokens + t) * v.row_stride, v.position + t + 1);
        }
      }
      break;
    case Role::kVCache:
      for (int64_t c = 0; c < site.cols; ++c) visit(data + c * v.row_stride + v.position, v.tokens);
      break;
    case Role::kKCache:
      visit(data + int64_t{v.position} * site.cols, int64_t{v.tokens} * site.cols);
      break;
    default:
      visit(data, int64_t{v.tokens} * site.cols);
  }
}

template <typename T>
void count_as(const Graph& graph, const SiteValues& values, SiteCounts& counts) {
  const IntegerRange range = integer_range(graph.site(values.site).qparams.dtype);
  for_visible<T>(graph, values, [&](const T* begin, int64_t size) {
    for (int64_t i = 0; i < size; ++i) counts.add(begin[i], range);
  });
}

template <typename T>
SiteArray copy_as(const Graph& graph, const SiteValues& v) {
  const Site& site = graph.site(v.site);
  const size_t positions = static_cast<size_t>(v.position) + v.tokens;
  const T* data = static_cast<const T*>(v.data);
  std::vector<T> all;
  SiteArray result;
  switch (site.role) {
    case Role::kScores:
      result.shape = {static_cast<size_t>(graph.config.num_heads), static_cast<size_t>(v.tokens),
                      positions};
      for_visible<T>(graph, v, [&](const T* begin, int64_t size) {
        all.insert(all.end(), begin, begin + size);
        all.insert(all.end(), positions - size, static_cast<T>(zero_of(site)));
      });
      break;
    case Role::kVCache:
      result.shape = {positions, static_cast<size_t>(site.cols)};
      for (size_t p = 0; p < positions; ++p) {
        for (int c = 0; c < site.cols; ++c) all.push_back(data[c * v.row_stride + p]);
      }
      break;
    default: {
      const bool cache = site.role == Role::kKCache;
      result.shape = {cache ? positions : v.tokens, static_cast<size_t>(site.cols)};
      all.assign(data, data + result.shape[0] * site.cols);
    }
  }
  result.bytes.resize(all.size() * sizeof(T));
  std::memcpy(result.bytes.data(), all.data(), result.bytes.size());
  return result;
}

}  // namespace

void SiteCounts::add(int32_t q, const IntegerRange& range) {
  least = values == 0 ? q : std::min(least, q);
  greatest = values == 0 ? q : std::max(greatest, q);
  ++values;
  saturated += q == range.qmin || q == range.qmax;
  sum += q;
  sum_of_squares += double{1.0} * q * q;
  const int64_t width = int64_t{range.qmax} - range.qmin + 1;
  ++histogram[static_cast<size_t>((int64_t{q} - range.qmin) * kBins / width)];
}

void count(const Graph& graph, const SiteValues& values, SiteCounts& counts) {
  switch (graph.site(values.site).qparams.dtype) {
    case DType::kS16:
      return count_as<int16_t>(graph, values, counts);
    case DType::kU16:
      return count_as<uint16_t>(graph, values, counts);
    default:
      return count_as<int8_t>(graph, values, counts);
  }
}

SiteArray copy(const Graph& graph, const SiteValues& values) {
  switch (graph.site(values.site).qparams.dtype) {
    case DType::kS16:
      return copy_as<int16_t>(graph, values);
    case DType::kU16:
      return copy_as<uint16_t>(graph, values);
    default:
      return copy_as<int8_t>(graph, values);
  }
}

}  // namespace qnpu::python
