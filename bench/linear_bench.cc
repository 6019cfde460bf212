// Speed of linears at the shapes of SmolLM2-135M and of Llama 3.2 1B. One row (decode) has its
// weights come from memory: so many copies take turns that no cache holds them.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <vector>

#include "base/law.h"
#include "bench/random.h"
#include "bench/roofline.h"
#include "kernels/linear/linear.h"
#include "kernels/matmul/panels.h"

namespace qnpu {
namespace {

constexpr size_t kBeyondCaches = size_t{192} << 20;

// The same weights again and again, as rows or, where the instruction set takes them, as panels.
struct Weights {
  std::vector<uint8_t> rows, panels;
  size_t row_bytes, panel_bytes, copies, turn = 0;

  Weights(int n, int k, int bits, bool beyond_caches)
      : row_bytes(size_t(n) * k * bits / 8), panel_bytes(panels_bytes(n, k, bits)) {
    copies = beyond_caches ? kBeyondCaches / row_bytes + 1 : 1;
    const auto one = random_integers<uint8_t>(row_bytes);
    for (size_t i = 0; i < copies; ++i) {
      if (takes_panels(best_isa())) {
        panels.resize((i + 1) * panel_bytes);
        make_panels(one.data(), n, k, bits, panels.data() + i * panel_bytes, best_isa());
      } else {
        rows.insert(rows.end(), one.begin(), one.end());
      }
    }
  }
  void next(LinearWeights& w) {
    w.weight = rows.data() + turn * row_bytes;
    w.panels = panels.empty() ? nullptr : panels.data() + turn * panel_bytes;
    turn = (turn + 1) % copies;
  }
};

// Arguments: rows, outputs, inputs, weight bits.
template <typename T>
void linear(benchmark::State& state) {
  const auto m = static_cast<int>(state.range(0)), n = static_cast<int>(state.range(1));
  const auto k = static_cast<int>(state.range(2)), bits = static_cast<int>(state.range(3));
  const size_t bytes = size_t(n) * k * bits / 8;
  Weights weights(n, k, bits, m == 1);
  const auto x = random_integers<T>(int64_t{m} * k);
  const Requant law = sizeof(T) == 1 ? make_requant8(1e-3) : make_requant16(1e-3);
  const std::vector<int32_t> sums(n), mantissa(n, law.mantissa), shift(n, law.shift);
  std::vector<T> y(int64_t{m} * n);
  std::vector<uint8_t> scratch(linear_scratch_bytes(m, k));
  const Isa isa = best_isa();
  // 16 bits are two planes.
  const Work work = {double(m) * n * k * sizeof(T), m == 1 ? double(bytes) : 0};
  LinearWeights w{n, k, bits, nullptr, sums.data(), nullptr, mantissa.data(), shift.data()};
  measure(state, work, [&] {
    weights.next(w);
    if constexpr (sizeof(T) == 1) {
      linear_s8(x.data(), m, w, y.data(), scratch.data(), isa);
    } else {
      linear_s16(x.data(), m, w, y.data(), scratch.data(), isa);
    }
  });
}

void linear_shapes(benchmark::internal::Benchmark* b) {
  b->UseRealTime()->ArgNames({"M", "N", "K", "bits"});
  for (int m : {512, 128, 8, 1}) {
    for (int bits : {4, 8}) {
      b->Args({m, 1536, 576, bits})->Args({m, 576, 1536, bits})->Args({m, 576, 576, bits});
      b->Args({m, 8192, 2048, bits})->Args({m, 2048, 8192, bits})->Args({m, 2048, 2048, bits});
    }
  }
  for (int m : {8, 1}) b->Args({m, 49152, 576, 8})->Args({m, 128256, 2048, 8});
}
BENCHMARK(linear<int8_t>)->Apply(linear_shapes);
BENCHMARK(linear<int16_t>)->Apply(linear_shapes);

}  // namespace
}  // namespace qnpu
