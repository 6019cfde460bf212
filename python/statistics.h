// What the sites of a model hold while it reads a text.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "runtime/session.h"

namespace qnpu::python {

constexpr int kBins = 256;

// Of the values that tokens can see: of scores those of positions that are visible, of caches the
// rows of new tokens.
struct SiteCounts {
  int64_t values = 0;
  int64_t saturated = 0;  // at an end of the integers' range
  int32_t least = 0;
  int32_t greatest = 0;
  double sum = 0.0;  // of the integers
  double sum_of_squares = 0.0;
  std::array<int64_t, kBins> histogram = {};  // equal parts of the integers' range

  void add(int32_t q, const IntegerRange& range);
};

void count(const Graph& graph, const SiteValues& values, SiteCounts& counts);

// A copy as an array without holes: activations [T, cols]; scores [H, T, C] of C positions, what
// a token cannot see being zero_point; caches [positions, cols], keys and values alike.
struct SiteArray {
  std::vector<size_t> shape;
  std::vector<std::byte> bytes;  // of s8, s16 or u16
};
SiteArray copy(const Graph& graph, const SiteValues& values);

}  // namespace qnpu::python
