// Nothing is allocated while a session runs: every operator new of this program is counted. (Memory
// taken by malloc directly is not seen; kernels and the walk do not call it. The kernels' threads
// are made in the first call.)
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "io/test_folder.h"
#include "runtime/session.h"
#include "runtime/testing/random_artifact.h"

namespace {
std::atomic<int64_t> allocations{0};
}  // namespace

// AddressSanitizer has an operator new of its own.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kCounts = false;
#else
constexpr bool kCounts = true;

namespace {
void* counted(std::size_t size, std::size_t alignment) {
  ++allocations;
  void* pointer =
      alignment <= alignof(std::max_align_t)
          ? std::malloc(size == 0 ? 1 : size)
          : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (pointer == nullptr) throw std::bad_alloc();
  return pointer;
}
}  // namespace

void* operator new(std::size_t size) { return counted(size, 1); }
void* operator new[](std::size_t size) { return counted(size, 1); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return counted(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return counted(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* pointer) noexcept { std::free(pointer); }
void operator delete[](void* pointer) noexcept { std::free(pointer); }
void operator delete(void* pointer, std::size_t) noexcept { std::free(pointer); }
void operator delete[](void* pointer, std::size_t) noexcept { std::free(pointer); }
void operator delete(void* pointer, std::align_val_t) noexcept { std::free(pointer); }
void operator delete[](void* pointer, std::align_val_t) noexcept { std::free(pointer); }
void operator delete(void* pointer, std::size_t, std::align_val_t) noexcept { std::free(pointer); }
void operator delete[](void* pointer, std::size_t, std::align_val_t) noexcept {
  std::free(pointer);
}
#endif

namespace qnpu {
namespace {

class NoAllocationTest : public ::testing::TestWithParam<std::tuple<Isa, int>> {};

TEST_P(NoAllocationTest, RunDoesNotAllocate) {
  const auto [isa, threads] = GetParam();
  if (!kCounts) GTEST_SKIP() << "not counted under AddressSanitizer";
  if (!isa_supported(isa)) GTEST_SKIP() << "this CPU has no " << isa_name(isa);
  TestFolder folder;
  testing::make_random_artifact(testing::tiny_config("qwen3"), Recipe{}, 4, folder.path(),
                                /*positions=*/192, /*prefix=*/2);
  Session session(load_artifact(folder.path()),
                  {.context = 150, .max_rows = 60, .threads = threads, .isa = isa});
  Session several(load_artifact(folder.path()),
                  {.context = 100, .max_rows = 60, .threads = threads, .sequences = 3, .isa = isa});
  const std::vector<int32_t> tokens(60, 11);
  const Piece pieces[] = {{2, std::span(tokens).first(9)},
                          {0, std::span(tokens).first(1)},
                          {1, std::span(tokens).first(30)}};
  session.run(tokens, true);
  session.reset();

  const int64_t before = allocations;
  session.run(tokens, true);
  for (size_t i = 0; i < 20; ++i) session.run(std::span(tokens).subspan(i, 1), false);
  session.prefill(std::span(tokens).first(50));
  session.truncate(3);
  session.run(std::span(tokens).first(7), false);
  for (int i = 0; i < 3; ++i) several.run_batch(pieces);
  several.copy(1, 2, 20);
  EXPECT_EQ(allocations - before, 0);
}

INSTANTIATE_TEST_SUITE_P(Isas, NoAllocationTest,
                         ::testing::Combine(::testing::Values(Isa::kReference, Isa::kAvx2,
                                                              Isa::kAvx512Vnni, Isa::kAmxInt8),
                                            ::testing::Values(1, 2)),
                         [](const auto& info) {
                           return fmt::format("{}_threads{}", isa_name(std::get<0>(info.param)),
                                              std::get<1>(info.param));
                         });

TEST(NoAllocation, TheCounterCounts) {
  if (!kCounts) GTEST_SKIP() << "not counted under AddressSanitizer";
  const int64_t before = allocations;
  std::vector<int> v(100);
  EXPECT_EQ(allocations - before, 1);
}

}  // namespace
}  // namespace qnpu
