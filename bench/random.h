// Numbers for benchmarks.
#pragma once

#include <random>
#include <vector>

namespace qnpu {

template <typename T>
std::vector<T> random_integers(size_t count) {
  std::mt19937 engine(1);
  std::vector<T> values(count);
  for (T& v : values) v = static_cast<T>(engine());
  return values;
}

}  // namespace qnpu
