// The vectorised loops against the law, number by number.
#include "kernels/elementwise/elementwise.h"

#include <gtest/gtest.h>
#include <omp.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/testing.h"

namespace qnpu {
namespace {

int16_t saturate16(int64_t v) {
  return static_cast<int16_t>(std::clamp<int64_t>(v, -32768, 32767));
}
int8_t saturate8(int64_t v) { return static_cast<int8_t>(std::clamp<int64_t>(v, -128, 127)); }

double ratio(Random& random, int low, int high) {
  return std::ldexp(1.0 + random.between(0, 4095) / 4096.0,
                    static_cast<int>(random.between(low, high)));
}

RC_GTEST_PROP(Elementwise, SumsAndProducts, (uint64_t seed)) {
  Random random(seed);
  const int n = static_cast<int>(random.between(1, 300));
  const auto a = random.integers<int16_t>(n, -32768, 32767);
  const auto b = random.integers<int16_t>(n, -32768, 32767);
  const int zero = static_cast<int>(random.between(-32768, 32767));
  const AddLaw sum = make_add16(ratio(random, -6, 6), ratio(random, -6, 6), 1);
  const MulLaw product = make_mul16(1, 1, ratio(random, 4, 20));
  std::vector<int16_t> y(n), z(n);
  add_s16(a.data(), b.data(), n, sum, y.data());
  mul_s16(a.data(), zero, b.data(), n, product, z.data());
  for (int i = 0; i < n; ++i) {
    RC_ASSERT(y[i] == saturate16(add16(a[i], b[i], sum)));
    RC_ASSERT(z[i] == saturate16(mul(a[i] - zero, b[i], product)));
  }
}

RC_GTEST_PROP(Elementwise, EightBits, (uint64_t seed)) {
  Random random(seed);
  const int n = static_cast<int>(random.between(1, 300));
  const auto a = random.integers<int8_t>(n, -128, 127), b = random.integers<int8_t>(n, -128, 127);
  const auto table = random.integers<int16_t>(256, -128, 127);
  const int zero = static_cast<int>(random.between(-128, 127));
  const MulLaw law = make_mul8(1, 1, ratio(random, 0, 29));  // the largest shifts: 64-bit products
  std::vector<int8_t> y(n), back(n);
  std::vector<int16_t> wide(n);
  mul_s8(a.data(), zero, b.data(), n, law, y.data());
  widen_s8_s16(a.data(), n, wide.data());
  narrow_s16_s8(wide.data(), n, back.data());
  RC_ASSERT(back == a);
  for (int i = 0; i < n; ++i) {
    RC_ASSERT(y[i] == saturate8(mul(a[i] - zero, b[i], law)));
    RC_ASSERT(wide[i] == a[i] * 256);
  }
  for (const Isa isa : all_isas()) {
    std::vector<int8_t> z(n + 1, 99);
    table_s8(a.data(), table.data(), n, z.data(), isa);
    for (int i = 0; i < n; ++i) RC_ASSERT(z[i] == table[a[i] + 128]);
    RC_ASSERT(z[n] == 99);  // nothing behind them is written
  }
}

// Every 16-bit number, in one vectorised call and in calls of one: the nearest step of 2^8 or 2^12,
// halves up, as real arithmetic has it.
TEST(Elementwise, NarrowingRoundsEveryNumberHalfUp) {
  std::vector<int16_t> x(65536);
  for (int i = 0; i < 65536; ++i) x[i] = static_cast<int16_t>(i - 32768);
  std::vector<int8_t> eight(x.size()), four(x.size());
  narrow_s16_s8(x.data(), 65536, eight.data());
  narrow_s16_s4(x.data(), 65536, four.data());
  for (int i = 0; i < 65536; ++i) {
    ASSERT_EQ(eight[i], std::clamp(std::floor(x[i] / 256.0 + 0.5), -128.0, 127.0)) << x[i];
    ASSERT_EQ(four[i], std::clamp(std::floor(x[i] / 4096.0 + 0.5), -8.0, 7.0)) << x[i];
    int8_t one = 99;
    narrow_s16_s4(&x[i], 1, &one);
    ASSERT_EQ(one, four[i]) << x[i];
  }
}

RC_GTEST_PROP(Elementwise, RmsNorm, (uint64_t seed)) {
  Random random(seed);
  const int rows = static_cast<int>(random.between(1, 4));
  const int cols = static_cast<int>(random.between(1, 200));
  const auto x = random.integers<int16_t>(rows * cols, -32768, 32767);
  const auto gamma = random.integers<int16_t>(cols, -32768, 32767);
  const RmsNormLaw law = make_rmsnorm(ratio(random, -14, -6), ratio(random, -16, -14),
                                      ratio(random, -12, -9), 1e-5, cols);
  std::vector<int16_t> y(rows * cols);
  rmsnorm_s16(x.data(), gamma.data(), rows, cols, law, y.data());
  for (int r = 0; r < rows; ++r) {
    int64_t sum = 0;
    for (int c = 0; c < cols; ++c) sum += int64_t{x[r * cols + c]} * x[r * cols + c];
    const RmsNormFactor f = rmsnorm_factor(sum, law);
    for (int c = 0; c < cols; ++c) {
      RC_ASSERT(y[r * cols + c] == saturate16(rmsnorm(x[r * cols + c], gamma[c], f)));
    }
  }
}

TEST(Elementwise, RotateHalf) {
  const std::vector<int16_t> x = {1, 2, -32768, 4, 5, 6, 7, 8};
  std::vector<int16_t> y(8);
  rotate_half_s16(x.data(), 1, 2, 4, y.data());
  EXPECT_EQ(y, (std::vector<int16_t>{32767, -4, 1, 2, -7, -8, 5, 6}));
}

RC_GTEST_PROP(Elementwise, RopeTakesTheRowOfThePosition, (uint64_t seed)) {
  Random random(seed);
  const int tokens = 3, heads = 2, position = 4;
  const int half = static_cast<int>(random.between(1, 50)), dim = 2 * half;
  const auto x = random.integers<int16_t>(tokens * heads * dim, -32768, 32767);
  const auto table = random.integers<int16_t>((position + tokens) * half, -32768, 32767);
  const MulLaw law = make_mul16(1, 1, ratio(random, 4, 30));
  for (const Isa isa : all_isas()) {
    std::vector<int16_t> y(x.size() + 1, 99);
    rope_mul_s16(x.data(), table.data(), tokens, position, heads, dim, law, y.data(), isa);
    for (int t = 0; t < tokens; ++t) {
      for (int i = 0; i < heads * dim; ++i) {
        const int16_t factor = table[(position + t) * half + i % half];
        RC_ASSERT(y[t * heads * dim + i] == saturate16(mul(x[t * heads * dim + i], factor, law)));
      }
    }
    RC_ASSERT(y.back() == 99);  // nothing behind them is written
  }
}

TEST(Elementwise, TablesAndEmbedding) {
  std::vector<int16_t> table(65536);
  for (int i = 0; i < 65536; ++i) table[i] = static_cast<int16_t>(i * 7);
  const std::vector<int16_t> x = {-32768, 32767, 0};
  std::vector<int16_t> y(3);
  table_s16(x.data(), table.data(), 3, y.data());
  EXPECT_EQ(y, (std::vector<int16_t>{table[0], table[65535], table[32768]}));
  const std::vector<int32_t> tokens = {2, 0};
  const std::vector<int16_t> rows = {1, 2, 3, 4, 5, 6};
  std::vector<int16_t> embedded(4);
  embedding_s16(tokens.data(), 2, rows.data(), 2, embedded.data());
  EXPECT_EQ(embedded, (std::vector<int16_t>{5, 6, 1, 2}));
}

TEST(Elementwise, SameBitsForAnyNumberOfThreads) {
  Random random(4);
  const int n = 100003;
  const auto a = random.integers<int16_t>(n, -32768, 32767);
  const AddLaw law = make_add16(0.7, 1.1, 1.3);
  std::vector<int16_t> one(n), more(n);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  add_s16(a.data(), a.data(), n, law, one.data());
  omp_set_num_threads(3);
  add_s16(a.data(), a.data(), n, law, more.data());
  omp_set_num_threads(threads);
  EXPECT_EQ(one, more);
}

}  // namespace
}  // namespace qnpu
