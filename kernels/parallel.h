// Threads of the kernels: a pool that lives as long as the program. As many threads as OpenMP would
// take (omp_set_num_threads, OMP_NUM_THREADS), but pieces of work are claimed one by one and the
// caller waits for claimed pieces only. So a thread that the system has put aside holds nobody up,
// and nobody spins for long: with OpenMP's barriers a busy machine costs milliseconds per kernel.
// Which thread takes a piece is left to chance; results are integers and do not depend on it.
#pragma once

#include <algorithm>
#include <cstdint>

namespace qnpu {

int max_threads();

// Calls piece(context, i, worker) for every i in [0, count), worker in [0, max_threads()).
using RunPiece = void (*)(const void* context, int64_t i, int worker);
void run_pieces(int64_t count, RunPiece piece, const void* context);

// Calls run(i, worker) for every i in [0, count).
template <typename Function>
void parallel_for(int64_t count, const Function& run) {
  run_pieces(
      count,
      [](const void* f, int64_t i, int worker) { (*static_cast<const Function*>(f))(i, worker); },
      &run);
}

// Calls run(begin, end) on ranges of [0, count) of `grain` numbers.
template <typename Function>
void parallel_ranges(int64_t count, int64_t grain, const Function& run) {
  grain = std::max<int64_t>(grain, 1);
  parallel_for((count + grain - 1) / grain,
               [&](int64_t i, int) { run(i * grain, std::min(count, (i + 1) * grain)); });
}

}  // namespace qnpu
