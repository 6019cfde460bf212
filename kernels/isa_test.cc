#include "kernels/isa.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "base/status.h"

namespace qnpu {
namespace {

TEST(IsaTest, EnvironmentDecides) {
  setenv("QNPU_ISA", "reference", 1);
  EXPECT_EQ(best_isa(), Isa::kReference);
  setenv("QNPU_ISA", "sse9", 1);
  EXPECT_THROW(best_isa(), Error);
  unsetenv("QNPU_ISA");
  EXPECT_TRUE(isa_supported(best_isa()));
}

}  // namespace
}  // namespace qnpu
