// The law against independent arithmetic: long double with 64 significant bits, exact for what is
// computed here, or 128-bit integers.
#include "base/law.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "base/status.h"

namespace qnpu {
namespace {

using Real = long double;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

int64_t integer(Real floor_of) { return static_cast<int64_t>(std::floor(floor_of)); }

// (cut + 1/2) * M', half-up, where cut is the accumulator in steps of 2^shift and M' = M * 2^shift
// rounded to a significand.
int64_t expected_requant(int64_t acc, Requant r, int significand_bits, int guard) {
  const Real cut = std::floor(std::ldexp(static_cast<Real>(acc), -r.shift));
  const Real m = std::ldexp(static_cast<Real>(r.mantissa), -(significand_bits - 1) - guard);
  return integer((cut + 0.5L) * m + 0.5L);
}

double random_multiplier(int e) {
  const int extra = *rc::gen::inRange(0, 1 << 20);
  return std::ldexp(1.0 + std::ldexp(extra, -20), e);
}

RC_GTEST_PROP(Law, Requantize8, ()) {
  const double m = random_multiplier(*rc::gen::inRange(-29, 6));
  const int64_t acc = *rc::gen::inRange<int64_t>(INT32_MIN, INT32_MAX);
  const Requant law = make_requant8(m);
  RC_ASSERT(law.mantissa >= 2048 && law.mantissa < 4096);
  RC_ASSERT(requantize8(acc, law) == expected_requant(acc, law, 12, 4));
  // Near the true value: half a step of rounding, a sixteenth of the cut, 12 bits of M.
  const Real truth = static_cast<Real>(acc) * m;
  RC_ASSERT(std::abs(requantize8(acc, law) - truth) <= 0.5625L + std::abs(truth) / 4096 + 32 * m);
}

RC_GTEST_PROP(Law, Requantize16, ()) {
  const double m = random_multiplier(*rc::gen::inRange(-29, 6));
  // acc * M stays within the clamp, where the law is the plain formula.
  const auto most = static_cast<int64_t>(std::min(4e12, 60000 / m));
  const int64_t acc = *rc::gen::inRange<int64_t>(-most, most);
  const auto bias = static_cast<int32_t>(*rc::gen::inRange(-most / 512 - 1, most / 512 + 1));
  const Requant law = make_requant16(m);
  const int64_t kept = (integer(static_cast<Real>(acc) / 256) + bias) * 256;
  RC_ASSERT(law.mantissa >= 1 << 21 && law.mantissa < 1 << 22);
  const Real cut = std::floor(std::ldexp(static_cast<Real>(kept), -law.shift));
  RC_PRE(std::abs(cut) < (1 << 24));
  RC_ASSERT(requantize16(acc, bias, law) == expected_requant(kept, law, 22, 8));
}

TEST(Law, RequantizeRoundsTiesUpAtBothSigns) {
  const Requant half = make_requant8(0.5);  // acc cut to 1/8 of a step, 1/16 added
  const std::vector<int64_t> expected = {-2, -1, -1, 0, 0, 1, 1, 2, 2};
  for (int64_t acc = -4; acc <= 4; ++acc) EXPECT_EQ(requantize8(acc, half), expected[acc + 4]);
  const Requant wide = make_requant16(1.0 / 512);  // 256 accumulators are half a step
  EXPECT_EQ(requantize16(256, 0, wide), 1);
  EXPECT_EQ(requantize16(255, 0, wide), 0);
  EXPECT_EQ(requantize16(-256, 0, wide), 0);
  EXPECT_EQ(requantize16(-257, 0, wide), -1 + 0);
  EXPECT_EQ(requantize16(-768, 0, wide), -1);
  EXPECT_EQ(requantize16(-769, 0, wide), -2);
}

TEST(Law, ExtremeAccumulatorsSaturateInsteadOfOverflowing) {
  for (int64_t acc : {int64_t{1} << 46, (int64_t{1} << 46) - 1}) {
    EXPECT_GT(requantize16(acc, 0, make_requant16(63.9)), 65000);
    EXPECT_LT(requantize16(-acc, 0, make_requant16(63.9)), -65000);
  }
  EXPECT_GT(requantize8(INT32_MAX, make_requant8(63.9)), 127);
  EXPECT_LT(requantize8(INT32_MIN, make_requant8(63.9)), -128);
}

TEST(Law, BiasIsTruncatedTowardZero) {
  EXPECT_EQ(bias16(511), 1);
  EXPECT_EQ(bias16(-511), -1);
  EXPECT_EQ(bias16(-255), 0);
}

RC_GTEST_PROP(Law, SnappedMultipliersAreExactInBothForms, ()) {
  const double m = random_multiplier(*rc::gen::inRange(-29, 5));
  const double snapped = snap_multiplier(m);
  RC_ASSERT(std::abs(snapped - m) <= m / 4096);
  RC_ASSERT(snap_multiplier(snapped) == snapped);
  const Requant narrow = make_requant8(snapped), wide = make_requant16(snapped);
  RC_ASSERT(std::ldexp(narrow.mantissa, -narrow.shift - 15) == snapped);
  RC_ASSERT(std::ldexp(wide.mantissa, -wide.shift - 29) == snapped);
  RC_ASSERT(wide.mantissa == narrow.mantissa << 10);
}

TEST(Law, SignificandThatRoundsUpToAPowerOfTwo) {
  const Requant r = make_requant8(std::nextafter(0.5, 0));
  EXPECT_EQ(r.mantissa, 2048);
  EXPECT_EQ(r.shift, make_requant8(0.5).shift);
}

TEST(Law, MultipliersOutsideTheirRangeAreErrors) {
  for (double m : {0.0, -1.0, 64.0, 1e30, 0x1p-31, kNan, double{INFINITY}}) {
    EXPECT_THROW(make_requant8(m), Error) << m;
    EXPECT_THROW(make_requant16(m), Error) << m;
  }
  EXPECT_NO_THROW(make_requant8(63.99));
  EXPECT_NO_THROW(make_requant16(0x1.1p-30));
}

// ---- Elementwise -------------------------------------------------------------------------------

RC_GTEST_PROP(Law, Add16, ()) {
  const double ra = random_multiplier(*rc::gen::inRange(-9, 9));
  const double rb = random_multiplier(*rc::gen::inRange(-9, 9));
  const int64_t a = *rc::gen::inRange(-32768, 32768), b = *rc::gen::inRange(-32768, 32768);
  const AddLaw law = make_add16(ra, rb, 1.0);
  RC_ASSERT(law.shift <= 16 && std::max(law.ma, law.mb) <= 32767);
  RC_ASSERT(law.shift == 16 || std::max(law.ma, law.mb) >= 1 << 14);
  const Real exact =
      std::ldexp(static_cast<Real>(a) * law.ma + static_cast<Real>(b) * law.mb, -law.shift);
  RC_ASSERT(add16(a, b, law) == integer(exact + 0.5L));
  RC_ASSERT(std::abs(exact - (a * static_cast<Real>(ra) + b * static_cast<Real>(rb))) <=
            std::ldexp(32768.0, -law.shift));
}

TEST(Law, AddersMultipliersHaveFifteenBits) {
  EXPECT_EQ(make_add16(32767.49 / 32768, 0.1, 1.0).shift, 15);
  EXPECT_EQ(make_add16(32767.5 / 32768, 0.1, 1.0).ma, 16384);
  EXPECT_EQ(make_add16(0.001, 0.0001, 1.0).ma, 66);            // 65.5, in steps of 2^-16
  EXPECT_EQ(make_add16(16552.5 / 16384, 0.1, 1.0).ma, 16552);  // ties go to even numbers
  EXPECT_EQ(make_add16(16553.5 / 16384, 0.1, 1.0).ma, 16554);
}

TEST(Law, MaskedScoresOfTwoOddMultipliers) {
  EXPECT_EQ(masked16(1, {3, 5, 3}), 1);  // (3 + 4 + 1) >> 3
  EXPECT_EQ(masked16(1, {3, 4, 3}), 0);
  EXPECT_EQ(masked16(-1, {3, 5, 3}), 0);
}

TEST(Law, AddOfPowersOfTwoIsHalfUp) {
  const AddLaw law = make_add16(1.0, 1.0, 2.0);
  EXPECT_EQ(add16(1, 0, law), 1);
  EXPECT_EQ(add16(-1, 0, law), 0);
  EXPECT_EQ(add16(-2, -1, law), -1);
  EXPECT_EQ(add16(32767, 32767, law), 32767);
  EXPECT_EQ(add16(-32768, -32768, law), -32768);
}

RC_GTEST_PROP(Law, Mul8And16, ()) {
  const int64_t a8 = *rc::gen::inRange(-256, 256), b8 = *rc::gen::inRange(-128, 128);
  const MulLaw law8 = make_mul8(1, 1, random_multiplier(*rc::gen::inRange(0, 15)));
  const Real exact8 = std::ldexp(static_cast<Real>(a8 * b8) * law8.multiplier, -law8.shift);
  RC_ASSERT(mul(a8, b8, law8) == integer(exact8 + 0.5L));
  const int64_t a = *rc::gen::inRange(-65535, 65536), b = *rc::gen::inRange(-32768, 32768);
  const MulLaw law = make_mul16(1, 1, random_multiplier(*rc::gen::inRange(4, 20)));
  const Real exact = std::ldexp(static_cast<Real>(a * b) * law.multiplier, -law.shift);
  RC_ASSERT(mul(a, b, law) == integer(exact + 0.5L));
}

TEST(Law, MulTiesGoUpAtBothSigns) {
  const MulLaw law = make_mul8(1, 1, 2);
  EXPECT_EQ(mul(1, 1, law), 1);
  EXPECT_EQ(mul(-1, 1, law), 0);
  EXPECT_EQ(mul(-1, 3, law), -1);
}

TEST(Law, MulOfSixteenBitsFormsItsRatioInSinglePrecision) {
  const float a = 1e-4f, b = 2e-4f, y = 2e-8f / 2.9e-3f;
  const float ratio = a * b / y;
  EXPECT_EQ(make_mul16(a, b, y).multiplier,
            static_cast<int32_t>(std::floor(std::ldexp(double{ratio}, 34) + 0.5)));
  EXPECT_EQ(make_mul16(1, 1, 0x1p34 / 381830.5).multiplier, 381830);  // ties go to even numbers
  EXPECT_EQ(make_mul16(1, 1, 0x1p34 / 381831.5).multiplier, 381832);
}

TEST(Law, WidthsOnEveryNumber) {
  for (int a = -32768; a <= 32767; ++a) {
    const double rounded = std::clamp(std::floor(a / 256.0 + 0.5), -128.0, 127.0);
    ASSERT_EQ(narrow(static_cast<int16_t>(a)), rounded) << a;
  }
  for (int a = -128; a <= 127; ++a) {
    ASSERT_EQ(narrow(widen(static_cast<int8_t>(a))), a);
    ASSERT_EQ(widen(static_cast<int8_t>(a)), a * 256);
  }
}

TEST(Law, ElementwiseScalesThatDoNotFitAreErrors) {
  for (double bad : {0.0, -1.0, kNan, double{INFINITY}}) {
    EXPECT_THROW(make_add16(bad, 1, 1), Error) << bad;
    EXPECT_THROW(make_add16(1, bad, 1), Error) << bad;
    EXPECT_THROW(make_mul8(bad, 1, 1), Error) << bad;
    EXPECT_THROW(make_mul16(bad, 1, 1), Error) << bad;
    EXPECT_THROW(make_rmsnorm(1, bad, 1, 1e-5, 64), Error) << bad;
  }
  EXPECT_THROW(make_add16(1, 1, 1e-9), Error);
  EXPECT_THROW(make_mul8(1, 1, 1e-9), Error);
  EXPECT_THROW(make_mul16(1, 1, 1e-9), Error);
  EXPECT_THROW(make_mul16(1, 1, 1e15), Error);
  EXPECT_THROW(make_rmsnorm(1e-12, 1, 1, 1e-5, 64), Error);
}

// ---- RMSNorm -----------------------------------------------------------------------------------

RC_GTEST_PROP(Law, RmsNorm, ()) {
  const int d = *rc::gen::inRange(1, 8192);
  const double x_scale = random_multiplier(*rc::gen::inRange(-16, -4));
  const double gamma_scale = random_multiplier(*rc::gen::inRange(-17, -12));
  const double out_scale = random_multiplier(*rc::gen::inRange(-14, -8));
  const int64_t sum = *rc::gen::inRange<int64_t>(0, int64_t{d} << *rc::gen::inRange(1, 31));
  const int64_t x = *rc::gen::inRange(-32768, 32768), gamma = *rc::gen::inRange(-32768, 32768);
  const double eps = *rc::gen::element(1e-5, 1e-6);
  const RmsNormLaw law = make_rmsnorm(x_scale, gamma_scale, out_scale, eps, d);
  const int64_t y = rmsnorm(x, gamma, rmsnorm_factor(sum, law));
  const Real mean = static_cast<Real>(sum) * x_scale * x_scale / d;
  const Real truth = x * static_cast<Real>(x_scale) * gamma * static_cast<Real>(gamma_scale) /
                     out_scale / std::sqrt(mean + eps);
  // The floor of the true value, but for numbers this near to a step's edge; epsilon is kept to
  // 2^-17, which counts in proportion to the sum that it is added to.
  const Real sum_and_eps = sum + eps * d / (Real{x_scale} * x_scale);
  const Real slack = std::abs(truth) * (0x1p-28L + 0x1p-17L / sum_and_eps);
  RC_ASSERT(y >= integer(truth - slack) && y <= integer(truth + slack));
}

TEST(Law, RmsNormOfZeros) {
  RmsNormLaw law = make_rmsnorm(1e-3, 1e-4, 1e-3, 1e-5, 64);
  EXPECT_EQ(rmsnorm(0, 30000, rmsnorm_factor(0, law)), 0);
  law.epsilon = 0;
  EXPECT_EQ(rmsnorm(0, 30000, rmsnorm_factor(0, law)), 0);
}

// ---- Softmax and tables ------------------------------------------------------------------------

TEST(Law, ExpIsCutToFifteenBits) {
  for (double scale : {0x1p-14, 0.001, 0.02, 0.3}) {
    const ExpTables tables = make_exp_tables(scale);
    EXPECT_EQ(exp_negative(0, tables.high.data(), tables.low.data()), 32767u);
    for (uint32_t d = 0; d <= 65535; ++d) {
      const double truth = 32768 * std::exp(-scale * d);
      // Half a step of the high table, and half a step of the low one relative to its smallest.
      const double error = 0x1p-16 + truth * 0x1p-16 / std::exp(-255 * scale);
      const double e = exp_negative(d, tables.high.data(), tables.low.data());
      ASSERT_LE(e, truth + error) << d;
      ASSERT_GT(e, truth - 1 - error) << d;
    }
  }
}

RC_GTEST_PROP(Law, SoftmaxReciprocalIsNearest, ()) {
  const uint64_t sum = *rc::gen::inRange<uint64_t>(32767, uint64_t{1} << 40);
  const SoftmaxReciprocal r = softmax_reciprocal(sum);
  const Real exact = std::ldexp(Real{1}, r.shift + 16) / static_cast<Real>(sum);
  RC_ASSERT(r.factor >= 8192 && r.factor <= 16384);
  RC_ASSERT(std::abs(exact - r.factor) <= 0.5L || (r.factor == 16384 && exact <= 16384.51L));
}

RC_GTEST_PROP(Law, SoftmaxAgainstDouble, ()) {
  const int n = *rc::gen::inRange(1, 3000);
  const double scale = *rc::gen::element(0x1p-13, 0.0004, 0.0009);
  const ExpTables tables = make_exp_tables(scale);
  uint32_t state = *rc::gen::arbitrary<uint32_t>();
  std::vector<uint32_t> below(n);
  for (uint32_t& d : below) d = (state = state * 1664525u + 1013904223u) >> 16;
  below[state % n] = 0;
  uint64_t sum = 0;
  double real_sum = 0;
  for (uint32_t d : below) {
    sum += exp_negative(d, tables.high.data(), tables.low.data());
    real_sum += std::exp(-scale * d);
  }
  const SoftmaxReciprocal reciprocal = softmax_reciprocal(sum);
  int64_t total = 0;
  for (uint32_t d : below) {
    const int64_t p =
        softmax_probability(exp_negative(d, tables.high.data(), tables.low.data()), reciprocal);
    const double truth = 65535 * std::exp(-scale * d) / real_sum;
    // A step of its own and two of the exponential; half a step of 8192 of the reciprocal, and what
    // the other exponentials lack in the sum.
    const double lost = std::max(0.0, 32768 * real_sum - static_cast<double>(sum)) / sum;
    RC_ASSERT(p - truth <= truth * (lost + 1.3e-4));
    RC_ASSERT(p - truth >= -3.1 - truth * 1.3e-4);
    total += p;
  }
  RC_ASSERT(total <= 65535 + 8 && total >= 65535 - 2 * n - 8);
}

TEST(Law, SoftmaxOfOneAndOfEqualNumbers) {
  const auto equal = [](uint64_t count) {
    return softmax_probability(kExpOfZero, softmax_reciprocal(count * kExpOfZero));
  };
  EXPECT_EQ(equal(1), 65534);
  EXPECT_EQ(equal(2), 32767);
  EXPECT_EQ(equal(3), 21845);
  EXPECT_EQ(equal(15), 4368);
  EXPECT_EQ(equal(1024), 63);
}

TEST(Law, SiluTables) {
  for (int bits : {8, 16}) {
    const int half = 1 << (bits - 1);
    const double x_scale = 8.0 / half, y_scale = 7.3 / half;
    for (int zero : {0, -half + 20}) {
      const auto table = make_silu_table(bits, x_scale, y_scale, zero);
      ASSERT_EQ(table.size(), size_t(2) * half);
      for (int q = -half; q < half; ++q) {
        const Real x = q * static_cast<Real>(x_scale);
        const Real exact = x / (1 + std::exp(-x)) / static_cast<Real>(y_scale) + zero;
        const Real y = std::clamp<Real>(std::floor(exact + 0.5L), -half, half - 1);
        ASSERT_EQ(table[q + half], static_cast<int>(y)) << bits << " bits, " << q;
      }
    }
  }
}

}  // namespace
}  // namespace qnpu
