#include "kernels/requantize/requantize.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/testing.h"

namespace qnpu {
namespace {

Requant random_law(Random& random, bool wide) {
  const double m = std::ldexp(1.0 + random.between(0, 65535) / 65536.0,
                              static_cast<int>(random.between(-29, 5)));
  return wide ? make_requant16(m) : make_requant8(m);
}

// 32 bits and clamped cuts give what 64 bits give, over every multiplier and accumulator.
RC_GTEST_PROP(Requantize, EightBitsEqualTheLaw, (uint64_t seed)) {
  Random random(seed);
  const int n = static_cast<int>(random.one_in(2) ? kRequantCols : random.between(1, 31));
  const auto sums = random.integers<int32_t>(n, INT32_MIN, INT32_MAX);
  RequantBlock block;
  std::vector<int8_t> expected;
  std::vector<int32_t> acc;
  for (int j = 0; j < n; ++j) {
    const Requant law = random_law(random, false);
    const auto offset = static_cast<int32_t>(random.between(-1 << 30, 1 << 30));
    const int64_t sum = random.one_in(2) ? sums[j] : sums[j] >> random.between(0, 31);
    set_requant8(block, j, law, offset);
    // What the accumulator was before the offset, as the matmul leaves it: wrapped.
    acc.push_back(static_cast<int32_t>(static_cast<uint32_t>(sum - offset)));
    expected.push_back(static_cast<int8_t>(std::clamp<int64_t>(requantize8(sum, law), -128, 127)));
  }
  for (Isa isa : all_isas()) {
    std::vector<int8_t> y(n);
    requantize_row_s8(acc.data(), n, block, y.data(), isa);
    RC_ASSERT(y == expected);
  }
}

RC_GTEST_PROP(Requantize, SixteenBitsEqualTheLaw, (uint64_t seed)) {
  Random random(seed);
  const int n = static_cast<int>(random.one_in(2) ? kRequantCols : random.between(1, 31));
  RequantBlock block;
  std::vector<int16_t> expected;
  std::vector<int32_t> high, low;
  for (int j = 0; j < n; ++j) {
    const Requant law = random_law(random, true);
    const int64_t bound = int64_t{1} << random.between(1, 29);
    high.push_back(static_cast<int32_t>(random.between(-bound, bound)));
    low.push_back(static_cast<int32_t>(random.between(-bound, bound)));
    const auto offset = static_cast<int32_t>(random.between(-bound, bound));
    set_requant16(block, j, law, offset);
    const int64_t value = requantize16(int64_t{high[j]} * 256 + low[j], offset, law);
    expected.push_back(static_cast<int16_t>(std::clamp<int64_t>(value, -32768, 32767)));
  }
  for (Isa isa : all_isas()) {
    std::vector<int16_t> y(n);
    requantize_row_s16(high.data(), low.data(), n, block, y.data(), isa);
    RC_ASSERT(y == expected);
  }
}

}  // namespace
}  // namespace qnpu
