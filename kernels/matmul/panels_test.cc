#include "kernels/matmul/panels.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "kernels/testing.h"

namespace qnpu {
namespace {

// Every byte of every row stands where panels.h says, and there are zeros around it.
RC_GTEST_PROP(Panels, HoldTheRows, (uint64_t seed)) {
  Random random(seed);
  const int bits = random.one_in(2) ? 8 : 4;
  const auto n = static_cast<int>(random.between(1, 100));
  const int k = 2 * static_cast<int>(random.between(1, 200));
  const int64_t row_bytes = int64_t{k} * bits / 8;
  const auto weight = random.integers<uint8_t>(n * row_bytes, 1, 255);
  std::vector<uint8_t> wanted(panels_bytes(n, k, bits), 0);
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t byte = 0; byte < row_bytes; ++byte) {
      const int64_t panel = r / kPanelRows, word = byte / 4;
      wanted[panel * panel_bytes(k, bits) + (word * kPanelRows + r % kPanelRows) * 4 + byte % 4] =
          weight[r * row_bytes + byte];
    }
  }
  std::vector<Isa> isas = fast_isas();
  isas.push_back(Isa::kReference);
  for (const Isa isa : isas) {
    std::vector<uint8_t> panels(wanted.size(), 0x5a);
    make_panels(weight.data(), n, k, bits, panels.data(), isa);
    RC_ASSERT(panels == wanted);
  }
}

}  // namespace
}  // namespace qnpu
