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

TEST(IsaTest, EveryNameIsKnown) {
  for (Isa isa : {Isa::kReference, Isa::kAvx2, Isa::kAvx512Vnni, Isa::kAmxInt8}) {
    setenv("QNPU_ISA", isa_name(isa), 1);
    if (isa_supported(isa)) {
      EXPECT_EQ(best_isa(), isa);
    } else {
      EXPECT_THROW(best_isa(), Error);
    }
  }
  unsetenv("QNPU_ISA");
}

}  // namespace
}  // namespace qnpu
