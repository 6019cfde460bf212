#include "bench/roofline.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "kernels/parallel.h"

namespace qnpu {
namespace {

constexpr int kRounds = 7;  // the best counts
constexpr int64_t kMultiplyAdds = int64_t{1} << 31;
constexpr size_t kBufferBytes = size_t{512} << 20;

// Seconds until run(0) .. run(threads - 1) have all come back; the best of several rounds.
double best_seconds(int threads, const std::function<void(int)>& run) {
  double best = 1e9;
  for (int round = 0; round < kRounds; ++round) {
    const auto start = Clock::now();
    std::vector<std::thread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back(run, i);
    run(0);
    for (std::thread& other : others) other.join();
    best = std::min(best, seconds_since(start));
  }
  return best;
}

using MultiplyAdds = int64_t (*)(int64_t count);

MultiplyAdds multiply_adds_of(Isa isa) {
  switch (isa) {
    case Isa::kAmxInt8:
      return multiply_adds_amxint8;
    case Isa::kAvx512Vnni:
      return multiply_adds_avx512vnni;
    case Isa::kAvx2:
      return multiply_adds_avx2;
    default:
      return nullptr;
  }
}

double peak_operations(int threads) {
  const MultiplyAdds run = multiply_adds_of(best_isa());
  if (run == nullptr) return 0;
  std::vector<int64_t> done(static_cast<size_t>(threads));
  const double seconds =
      best_seconds(threads, [&](int i) { done[static_cast<size_t>(i)] = run(kMultiplyAdds); });
  double all = 0;
  for (const int64_t count : done) all += static_cast<double>(count);
  return 2 * all / seconds;
}

double peak_bytes(int threads) {
  void* memory =
      mmap(nullptr, kBufferBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) fail("no {} bytes of memory for the roofline", kBufferBytes);
  madvise(memory, kBufferBytes, MADV_HUGEPAGE);  // small pages cost a fifth of the bandwidth
  std::memset(memory, 1, kBufferBytes);
  const auto* buffer = static_cast<const uint64_t*>(memory);
  const size_t part = kBufferBytes / sizeof(uint64_t) / static_cast<size_t>(threads);
  std::vector<uint64_t> sums(static_cast<size_t>(threads));
  const double seconds = best_seconds(threads, [&](int i) {
    const uint64_t* words = buffer + static_cast<size_t>(i) * part;
    uint64_t sum = 0;
    for (size_t j = 0; j < part; ++j) sum += words[j];
    benchmark::DoNotOptimize(sums[static_cast<size_t>(i)] = sum);
  });
  munmap(memory, kBufferBytes);
  return static_cast<double>(part * sizeof(uint64_t)) * threads / seconds;
}

}  // namespace

const Roofline& roofline() {
  static const Roofline measured = {peak_operations(max_threads()), peak_bytes(max_threads())};
  return measured;
}

void report(benchmark::State& state, const Work& work, double seconds) {
  const double operations = 2 * work.multiply_adds / seconds, bytes = work.bytes / seconds;
  state.counters["GOP/s"] = operations / 1e9;
  if (roofline().operations > 0) state.counters["%peak"] = 100 * operations / roofline().operations;
  if (bytes == 0) return;
  state.counters["GB/s"] = bytes / 1e9;
  state.counters["%read"] = 100 * bytes / roofline().bytes;
}

}  // namespace qnpu
