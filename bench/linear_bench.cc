// Speed of linears at the shapes of SmolLM2-135M and of Llama 3.2 1B. One row (decode) has its
// weights come from memory: so many copies take turns that no cache holds them.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <vector>

#include "base/law.h"
#include "bench/random.h"
#include "bench/roofline.h"
#include "kernels/linear/linear.h"

namespace qnpu {
namespace {

constexpr size_t kBeyondCaches = size_t{192} << 20;

// The same weights again and again.
std::vector<uint8_t> copies_of(const std::vector<uint8_t>& weight, size_t copies) {
  std::vector<uint8_t> all;
  all.reserve(copies * weight.size());
  for (size_t i = 0; i < copies; ++i) all.insert(all.end(), weight.begin(), weight.end());
  return all;
}

// Arguments: rows, outputs, inputs, weight bits.
template <typename T>
void linear(benchmark::State& state) {
  const auto m = static_cast<int>(state.range(0)), n = static_cast<int>(state.range(1));
  const auto k = static_cast<int>(state.range(2)), bits = static_cast<int>(state.range(3));
  const size_t bytes = size_t(n) * k * bits / 8;
  const size_t copies = m == 1 ? kBeyondCaches / bytes + 1 : 1;
  const auto weights = copies_of(random_integers<uint8_t>(bytes), copies);
  const auto x = random_integers<T>(int64_t{m} * k);
  const Requant law = sizeof(T) == 1 ? make_requant8(1e-3) : make_requant16(1e-3);
  const std::vector<int32_t> sums(n), mantissa(n, law.mantissa), shift(n, law.shift);
  std::vector<T> y(int64_t{m} * n);
  std::vector<uint8_t> scratch(linear_scratch_bytes(m, n, k));
  const Isa isa = best_isa();
  // 16 bits are two planes.
  const Work work = {double(m) * n * k * sizeof(T), m == 1 ? double(bytes) : 0};
  size_t turn = 0;
  measure(state, work, [&] {
    const uint8_t* weight = weights.data() + turn * bytes;
    const LinearWeights w{n, k, bits, weight, sums.data(), nullptr, mantissa.data(), shift.data()};
    turn = (turn + 1) % copies;
    if constexpr (sizeof(T) == 1) {
      linear_s8(x.data(), m, w, y.data(), scratch.data(), isa);
    } else {
      linear_s16(x.data(), m, w, y.data(), scratch.data(), isa);
    }
  });
}

void linear_shapes(benchmark::internal::Benchmark* b) {
  b->UseRealTime()->ArgNames({"M", "N", "K", "bits"});
  for (int m : {512, 128, 1}) {
    for (int bits : {4, 8}) {
      b->Args({m, 1536, 576, bits})->Args({m, 576, 1536, bits})->Args({m, 576, 576, bits});
      b->Args({m, 8192, 2048, bits})->Args({m, 2048, 8192, bits})->Args({m, 2048, 2048, bits});
    }
  }
  b->Args({1, 49152, 576, 8})->Args({1, 128256, 2048, 8});
}
BENCHMARK(linear<int8_t>)->Apply(linear_shapes);
BENCHMARK(linear<int16_t>)->Apply(linear_shapes);

}  // namespace
}  // namespace qnpu
