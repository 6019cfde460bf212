// Helpers of the kernels' tests: random numbers that visit the extremes often, and every
// instruction set of this CPU.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/isa.h"

namespace qnpu {

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  int64_t between(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(engine_);
  }
  bool one_in(int n) { return between(1, n) == 1; }

  // A quarter of the vectors is all one extreme, a quarter half extremes, the rest uniform.
  template <typename T>
  std::vector<T> integers(size_t count, int64_t low, int64_t high) {
    const int64_t kind = between(0, 3);
    const int64_t extreme = one_in(2) ? low : high;
    std::vector<T> values(count);
    for (T& v : values) {
      const bool end = kind == 0 || (kind == 1 && one_in(2));
      v = static_cast<T>(end ? (kind == 0 ? extreme : (one_in(2) ? low : high))
                             : between(low, high));
    }
    return values;
  }

 private:
  std::mt19937_64 engine_;
};

inline std::vector<Isa> fast_isas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::kAvx2, Isa::kAvx512Vnni, Isa::kAmxInt8}) {
    if (isa_supported(isa)) isas.push_back(isa);
  }
  return isas;
}

inline std::vector<Isa> all_isas() {
  std::vector<Isa> isas = fast_isas();
  isas.push_back(Isa::kReference);
  return isas;
}

}  // namespace qnpu
