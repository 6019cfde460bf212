#include "runtime/session_setup.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <vector>

namespace qnpu {
namespace {

constexpr size_t kBytes = size_t{64} << 20;

// Pages of the arena's inside that are in memory, as the system says.
double resident_share(const Arena& arena) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const auto first = (reinterpret_cast<uintptr_t>(arena.get()) + page - 1) / page * page;
  const size_t pages = kBytes / page - 1;
  std::vector<unsigned char> states(pages);
  EXPECT_EQ(::mincore(reinterpret_cast<void*>(first), pages * page, states.data()), 0);
  size_t resident = 0;
  for (const unsigned char state : states) resident += state & 1;
  return static_cast<double>(resident) / static_cast<double>(pages);
}

TEST(SessionSetup, AnArenaIsTakenAsItIsUsedOrAsAWhole) {
  EXPECT_LT(resident_share(allocate_arena(kBytes)), 0.1);
  EXPECT_EQ(resident_share(allocate_arena(kBytes, /*whole=*/true)), 1.0);
}

}  // namespace
}  // namespace qnpu
