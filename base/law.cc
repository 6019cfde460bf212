#include "base/law.h"

#include <cmath>

#include "base/qparams.h"
#include "base/status.h"

namespace qnpu {
namespace {

// floor(log2 x) without libm's rounding: frexp is exact.
int floor_log2(double x) {
  int exponent = 0;
  std::frexp(x, &exponent);
  return exponent - 1;
}

double round_half_up(double x) { return std::floor(x + 0.5); }

double round_half_even(double x) {
  const double down = std::floor(x);
  if (x - down != 0.5) return round_half_up(x);
  return std::fmod(down, 2.0) == 0.0 ? down : down + 1.0;
}

void check_ratio(const char* what, double ratio) {
  if (!(ratio > 0 && std::isfinite(ratio))) fail("{} has a scale ratio of {}", what, ratio);
}

Requant make_requant(double m, int significand_bits, int guard) {
  if (!(m > std::ldexp(1.0, -30) && m < 64.0)) {
    fail("a multiplier of {} is outside 2^-30 .. 2^6: the scales of this node do not fit together",
         m);
  }
  int e = floor_log2(m);
  const int bits = significand_bits - 1;
  auto mantissa = static_cast<int32_t>(round_half_up(std::ldexp(m, bits - e)));
  if (mantissa == (1 << significand_bits)) {
    mantissa >>= 1;
    ++e;
  }
  return {mantissa, -e - guard};
}

// floor(sqrt(x)) for x < 2^62: Newton's method from above, integers only.
uint64_t isqrt(uint64_t x) {
  if (x == 0) return 0;
  uint64_t r = uint64_t{1} << ((64 - __builtin_clzll(x) + 1) / 2);
  while (true) {
    const uint64_t next = (r + x / r) / 2;
    if (next >= r) return r;
    r = next;
  }
}

}  // namespace

Requant make_requant8(double m) { return make_requant(m, 12, 4); }
Requant make_requant16(double m) { return make_requant(m, 22, 8); }

double snap_multiplier(double m) {
  const int e = floor_log2(m);
  return std::ldexp(round_half_up(std::ldexp(m, 11 - e)), e - 11);
}

AddLaw make_add16(double a_scale, double b_scale, double out_scale) {
  // In single precision, as the NPU's compiler forms them: ties of the multipliers depend on it.
  const double ra = static_cast<float>(a_scale) / static_cast<float>(out_scale);
  const double rb = static_cast<float>(b_scale) / static_cast<float>(out_scale);
  check_ratio("an addition", ra);
  check_ratio("an addition", rb);
  const double larger = std::max(ra, rb);
  int shift = 14 - floor_log2(larger);
  if (round_half_even(std::ldexp(larger, shift)) > 32767) --shift;
  shift = std::min(shift, 16);
  if (shift < 1) fail("an addition's output is too fine for its inputs ({} and {})", ra, rb);
  return {static_cast<int32_t>(round_half_even(std::ldexp(ra, shift))),
          static_cast<int32_t>(round_half_even(std::ldexp(rb, shift))), shift};
}

MulLaw make_mul8(double a_scale, double b_scale, double out_scale) {
  const double r = a_scale * b_scale / out_scale;
  check_ratio("a product", r);
  const int shift = 14 - floor_log2(r);
  if (shift < 1 || shift > 44) fail("a product's scale ratio {} cannot be represented", r);
  return {static_cast<int32_t>(round_half_up(std::ldexp(r, shift))), shift};
}

MulLaw make_mul16(double a_scale, double b_scale, double out_scale) {
  // The NPU's compiler forms this ratio in single precision, and all its bits count: r * 2^34 is
  // longer than a float's significand.
  const float product = static_cast<float>(a_scale) * static_cast<float>(b_scale);
  const double r = product / static_cast<float>(out_scale);
  const double m = round_half_even(std::ldexp(r, 34));
  if (!(m >= 1 && m <= INT32_MAX)) fail("a product's scale ratio {} cannot be represented", r);
  return {static_cast<int32_t>(m), 34};
}

RmsNormLaw make_rmsnorm(double x_scale, double gamma_scale, double out_scale, double eps, int d) {
  RmsNormLaw law;
  const double epsilon = round_half_up(std::ldexp(eps * d / (x_scale * x_scale), 16));
  if (!(epsilon < std::ldexp(1.0, 60))) {
    fail("an RMSNorm input scale of {} is too small: its epsilon does not fit", x_scale);
  }
  law.epsilon = static_cast<int64_t>(epsilon);
  const double c = gamma_scale * std::sqrt(static_cast<double>(d)) / out_scale;
  check_ratio("an RMSNorm", c);
  const int e = floor_log2(c);
  law.mantissa = static_cast<int64_t>(std::floor(std::ldexp(c, 30 - e)));
  law.shift = 30 - e;
  return law;
}

RmsNormFactor rmsnorm_factor(int64_t sum_of_squares, const RmsNormLaw& law) {
  const uint64_t n =
      (static_cast<uint64_t>(sum_of_squares) << 16) + static_cast<uint64_t>(law.epsilon);
  if (n == 0) return {0, 0};
  // r = sqrt(n * 4^half), with n * 4^half in [2^60, 2^62): 31 significant bits.
  const int half = (__builtin_clzll(n) - 2) >> 1;
  const uint64_t r = isqrt(n << (2 * half));
  // C / sqrt(n / 2^16) = mantissa * 2^(half + 8) / (r * 2^shift); 31 more bits make the quotient
  // 30..32 bits.
  const auto factor = static_cast<int64_t>((static_cast<uint64_t>(law.mantissa) << 31) / r);
  return {factor, law.shift + 31 - half - 8};
}

ExpTables make_exp_tables(double scale) {
  ExpTables tables;
  for (int i = 0; i < 256; ++i) {
    tables.high.push_back(
        static_cast<uint32_t>(round_half_up(std::ldexp(std::exp(-256.0 * i * scale), 30))));
    tables.low.push_back(
        static_cast<uint32_t>(round_half_up(std::ldexp(std::exp(-1.0 * i * scale), 15))));
  }
  return tables;
}

std::vector<int16_t> make_silu_table(int bits, double x_scale, double out_scale,
                                     int32_t out_zero_point) {
  const auto [qmin, qmax] = integer_range(bits == 8 ? DType::kS8 : DType::kS16);
  std::vector<int16_t> table;
  table.reserve(static_cast<size_t>(qmax) - qmin + 1);
  for (int32_t q = qmin; q <= qmax; ++q) {
    const double x = q * x_scale;
    const double y = round_half_up(x / (1.0 + std::exp(-x)) / out_scale) + out_zero_point;
    table.push_back(static_cast<int16_t>(std::clamp<double>(y, qmin, qmax)));
  }
  return table;
}

}  // namespace qnpu
