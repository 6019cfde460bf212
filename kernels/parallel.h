// Splits [0, count) into one contiguous range per thread, or runs it at once where it is too short
// to be worth waking them (`grain`: the least count per thread).
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace qnpu {

template <typename Function>
void parallel_ranges(int64_t count, int64_t grain, Function run) {
  const auto threads = static_cast<int>(
      std::clamp<int64_t>(count / std::max<int64_t>(grain, 1), 1, omp_get_max_threads()));
  if (threads == 1) return run(int64_t{0}, count);
#pragma omp parallel num_threads(threads)
  {
    const int64_t t = omp_get_thread_num(), of = omp_get_num_threads();
    run(count * t / of, count * (t + 1) / of);
  }
}

}  // namespace qnpu
