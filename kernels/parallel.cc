#include "kernels/parallel.h"

#include <omp.h>

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

namespace qnpu {
namespace {

constexpr uint32_t kStop = UINT32_MAX;
constexpr int kSpins = 1000;  // some ten microseconds: the way from one kernel to the next

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Waits until `value` is not `old`: by looking for a moment, then by sleeping.
uint32_t await_change(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    const uint32_t now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    pause();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

// One job at a time. A piece is claimed by taking one off `remaining_`; whoever has claimed one may
// read the job, since the caller returns, and the next job is written, only after `finished_` has
// counted them all.
class Pool {
 public:
  ~Pool() { resize(0); }

  void run(int64_t count, RunPiece piece, const void* context) {
    piece_ = piece;
    context_ = context;
    count_ = static_cast<uint32_t>(count);
    finished_.store(0, std::memory_order_relaxed);
    remaining_.store(count_, std::memory_order_release);
    remaining_.notify_all();
    while (claim_one(0)) {
    }
    uint32_t finished = finished_.load(std::memory_order_acquire);
    while (finished != count_) finished = await_change(finished_, finished);
  }

  void resize(int workers) {
    if (workers == static_cast<int>(workers_.size())) return;
    remaining_.store(kStop, std::memory_order_release);
    remaining_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
    remaining_.store(0, std::memory_order_release);
    for (int i = 1; i <= workers; ++i) workers_.emplace_back([this, i] { work(i); });
  }

  std::mutex in_use;

 private:
  // False if there was none.
  bool claim_one(int worker) {
    uint32_t remaining = remaining_.load(std::memory_order_acquire);
    do {
      if (remaining == 0 || remaining == kStop) return false;
    } while (
        !remaining_.compare_exchange_weak(remaining, remaining - 1, std::memory_order_acq_rel));
    const uint32_t count = count_;
    piece_(context_, count - remaining, worker);
    if (finished_.fetch_add(1, std::memory_order_acq_rel) + 1 == count) finished_.notify_one();
    return true;
  }

  void work(int worker) {
    while (true) {
      while (claim_one(worker)) {
      }
      if (await_change(remaining_, 0) == kStop) return;
    }
  }

  std::vector<std::thread> workers_;
  RunPiece piece_ = nullptr;
  const void* context_ = nullptr;
  uint32_t count_ = 0;
  std::atomic<uint32_t> remaining_ = 0;
  std::atomic<uint32_t> finished_ = 0;
};

Pool& pool() {
  static Pool pool;
  return pool;
}

}  // namespace

int max_threads() { return omp_get_max_threads(); }

void run_pieces(int64_t count, RunPiece piece, const void* context) {
  // A second caller at the same time, or a kernel inside a kernel, works alone.
  if (count > 1 && max_threads() > 1 && pool().in_use.try_lock()) {
    const std::lock_guard lock(pool().in_use, std::adopt_lock);
    pool().resize(max_threads() - 1);
    return pool().run(count, piece, context);
  }
  for (int64_t i = 0; i < count; ++i) piece(context, i, 0);
}

}  // namespace qnpu
