// Speed of attention and of the smaller operations at the shapes of SmolLM2-135M.
//   ninja kernels_bench && OMP_NUM_THREADS=2 bench/kernels_bench
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <vector>

#include "base/law.h"
#include "base/status.h"
#include "bench/random.h"
#include "bench/roofline.h"
#include "kernels/attention/attention.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/matmul/panels.h"

namespace qnpu {
namespace {

AttentionShape shape_of(const benchmark::State& state) {
  return {.tokens = static_cast<int>(state.range(0)),
          .position = static_cast<int>(state.range(1)),
          .context = 2048,
          .heads = 9,
          .kv_heads = 3,
          .head_dim = 64,
          .panels = takes_panels(best_isa())};
}
double pairs(const AttentionShape& s) {
  return double(s.heads) * s.tokens * (s.position + 0.5 * (s.tokens + 1));
}
void attention_shapes(benchmark::internal::Benchmark* b) {
  b->UseRealTime()->ArgNames({"T", "position"})->Args({128, 0})->Args({128, 1024})->Args({1, 1024});
}

// Both products of every visible pair of query and key, each on two planes.
void attention(benchmark::State& state) {
  const AttentionShape s = shape_of(state);
  const auto q = random_integers<int16_t>(size_t(s.tokens) * 576);
  const auto keys = random_integers<int8_t>(key_cache_bytes(s));
  const auto values = random_integers<int8_t>(value_cache_bytes(s));
  const ExpTables tables = make_exp_tables(0.0005);
  const AttentionLaw law = {make_requant16(1e-4), make_add16(1, 1, 1.1), 3000,
                            tables.high.data(),   tables.low.data(),     make_requant16(1e-4)};
  std::vector<int16_t> out(q.size());
  std::vector<uint8_t> scratch(attention_tiles_scratch_bytes(s));
  const AttentionSegment segment = {s.tokens,    s.position,    q.data(),
                                    keys.data(), values.data(), out.data()};
  measure(state, {4 * pairs(s) * 64}, [&] {
    attention_s16s8_s16({&segment, 1}, s, law, scratch.data(), best_isa());
  });
}
BENCHMARK(attention)->Apply(attention_shapes);

// The smaller operations of 128 rows; elements are outputs.
template <typename Function>
void elementwise(benchmark::State& state, Function run) {
  const int64_t count = 128 * 576;
  const auto a = random_integers<int16_t>(count), b = random_integers<int16_t>(count);
  const auto c = random_integers<int8_t>(count);
  std::vector<int16_t> y(count);
  std::vector<int8_t> z(count);
  for (auto _ : state) run(a.data(), b.data(), c.data(), count, y.data(), z.data());
  state.counters["elements/s"] =
      benchmark::Counter(double(count), benchmark::Counter::kIsIterationInvariantRate);
}
using I16 = const int16_t*;
using I8 = const int8_t*;
BENCHMARK_CAPTURE(elementwise, add_s16, [](I16 a, I16 b, I8, int64_t n, int16_t* y, int8_t*) {
  add_s16(a, b, n, make_add16(0.7, 1, 1.3), y);
})->UseRealTime();
BENCHMARK_CAPTURE(elementwise, mul_s16, [](I16 a, I16 b, I8, int64_t n, int16_t* y, int8_t*) {
  mul_s16(a, 0, b, n, make_mul16(1, 1, 40000), y);
})->UseRealTime();
BENCHMARK_CAPTURE(elementwise, mul_s8, [](I16, I16, I8 c, int64_t n, int16_t*, int8_t* z) {
  mul_s8(c, 3, c, n, make_mul8(1, 1, 90), z);
})->UseRealTime();
BENCHMARK_CAPTURE(elementwise, table_s8, [](I16 a, I16, I8 c, int64_t n, int16_t*, int8_t* z) {
  table_s8(c, a, n, z, best_isa());
})->UseRealTime();
BENCHMARK_CAPTURE(elementwise, narrow, [](I16 a, I16, I8, int64_t n, int16_t*, int8_t* z) {
  narrow_s16_s8(a, n, z);
})->UseRealTime();
BENCHMARK_CAPTURE(elementwise, rope_mul, [](I16 a, I16 b, I8, int64_t, int16_t* y, int8_t*) {
  rope_mul_s16(a, b, 128, 0, 9, 64, make_mul16(1, 1, 33000), y, best_isa());
})->UseRealTime();
BENCHMARK_CAPTURE(elementwise, rmsnorm, [](I16 a, I16 b, I8, int64_t, int16_t* y, int8_t*) {
  rmsnorm_s16(a, b, 128, 576, make_rmsnorm(1e-3, 1e-4, 1e-3, 1e-5, 576), y);
})->UseRealTime();

}  // namespace
}  // namespace qnpu

int main(int argc, char** argv) try {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  const auto giga = [](double x) { return fmt::format("{:.1f}", x / 1e9); };
  benchmark::AddCustomContext("isa", qnpu::isa_name(qnpu::best_isa()));
  benchmark::AddCustomContext("peak GOP/s", giga(qnpu::roofline().operations));
  benchmark::AddCustomContext("read GB/s", giga(qnpu::roofline().bytes));
  benchmark::RunSpecifiedBenchmarks();
} catch (const qnpu::Error& error) {
  fmt::print(stderr, "kernels_bench: error: {}\n", error.what());
  return 1;
}
