#include "kernels/parallel.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <atomic>
#include <thread>
#include <vector>

namespace qnpu {
namespace {

class ParallelTest : public testing::Test {
 protected:
  void TearDown() override { omp_set_num_threads(before_); }
  int before_ = omp_get_max_threads();
};

TEST_F(ParallelTest, EveryPieceOnceForAnyNumberOfThreads) {
  for (int threads : {1, 2, 5, 3}) {
    omp_set_num_threads(threads);
    for (int count : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> calls(count);
      parallel_for(count, [&](int64_t i, int worker) {
        EXPECT_LT(worker, threads);
        ++calls[i];
      });
      for (auto& c : calls) EXPECT_EQ(c, 1);
    }
  }
}

TEST_F(ParallelTest, ManyShortJobs) {
  omp_set_num_threads(3);
  std::atomic<int64_t> sum = 0;
  for (int job = 0; job < 5000; ++job) parallel_for(4, [&](int64_t i, int) { sum += i; });
  EXPECT_EQ(sum, 5000 * 6);
}

TEST_F(ParallelTest, RangesCoverAll) {
  omp_set_num_threads(2);
  std::vector<int> hits(1003, 0);
  parallel_ranges(1003, 10, [&](int64_t begin, int64_t end) {
    for (; begin < end; ++begin) ++hits[begin];
  });
  EXPECT_EQ(hits, std::vector<int>(1003, 1));
}

TEST_F(ParallelTest, CallersAtTheSameTimeAndNestedCalls) {
  omp_set_num_threads(2);
  std::atomic<int64_t> sum = 0;
  const auto caller = [&] {
    for (int job = 0; job < 300; ++job) {
      parallel_for(5, [&](int64_t, int) { parallel_for(3, [&](int64_t i, int) { sum += i; }); });
    }
  };
  std::thread other(caller);
  caller();
  other.join();
  EXPECT_EQ(sum, 2 * 300 * 5 * 3);
}

}  // namespace
}  // namespace qnpu
