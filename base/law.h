// The integer law: what every operation of the artifact computes, to the bit. Each function here is
// the specification of one rounding; kernels loop over it, fast kernels equal it. The formulas are
// those measured on Qualcomm's HTP emulator (docs/numerics.md derives them and says where they are
// exact). The make_* functions run when a model is frozen, in double, with operations that IEEE
// defines exactly (multiply, divide, floor, frexp, ldexp); their integers are stored in the
// artifact.
//
// Notation: M = input_scale * weight_scale / output_scale, e = floor(log2 M), `>>` floors.
#pragma once

#include <algorithm>
#include <cstdint>
#include <variant>
#include <vector>

namespace qnpu {

// ---- Linears and products of activations ------------------------------------------------------

// M as a significand and a right shift of the accumulator (negative: a left shift).
struct Requant {
  int32_t mantissa = 0;
  int32_t shift = 0;
};

// 8-bit in and out: 12-bit significand. Throws Error unless 2^-30 < M < 2^6.
Requant make_requant8(double m);
// 16-bit in and out: 22-bit significand. Same bounds.
Requant make_requant16(double m);

// The multiplier nearest to m with 12 significant bits: with it both forms above are exact.
double snap_multiplier(double m);

inline int64_t shift_right_floor(int64_t x, int32_t shift) {
  return shift >= 0 ? x >> std::min(shift, 63) : x << -shift;
}

// Result without zero point, not clamped. The accumulator (bias included) is cut by floor to
// 1/16..1/8 of an output step, half such a step is added, and the product is rounded half-up.
inline int64_t requantize8(int64_t acc, Requant r) {
  const int64_t t = 2 * shift_right_floor(acc, r.shift) + 1;
  return (t * r.mantissa + (int64_t{1} << 15)) >> 16;
}

// 16-bit form: the lowest 8 bits of the accumulator are dropped before the bias (already divided by
// 256, see bias16) is added. The clamp changes nothing: beyond it the result is past +-65535, which
// every output saturates; without it the product could pass 2^63.
inline int64_t requantize16(int64_t acc, int32_t bias_256, Requant r) {
  const int64_t t = ((acc >> 8) + bias_256) * 256;
  const int64_t bound = int64_t{1} << 24;
  const int64_t u = 2 * std::clamp(shift_right_floor(t, r.shift), -bound, bound) + 1;
  return (u * r.mantissa + (int64_t{1} << 29)) >> 30;
}

// The stored bias of a 16-bit linear: bias / 256, truncated toward zero.
inline int32_t bias16(int64_t bias) { return static_cast<int32_t>(bias / 256); }

// ---- Elementwise ------------------------------------------------------------------------------

// y = (a * ma + b * mb + half) >> shift, 16 bits.
struct AddLaw {
  int32_t ma = 0;
  int32_t mb = 0;
  int32_t shift = 0;
};
// The larger multiplier has 15 bits, and shift is at most 16 (measured).
AddLaw make_add16(double a_scale, double b_scale, double out_scale);
inline int64_t add16(int64_t a, int64_t b, AddLaw law) {
  return (a * law.ma + b * law.mb + (int64_t{1} << (law.shift - 1))) >> law.shift;
}

// The sum of a visible score and the mask's 0, without the output's zero point. The compiler folds
// the mask's own zero point, 65535, into one constant, which comes out a unit larger if both
// multipliers are odd.
inline int64_t masked16(int64_t score, AddLaw law) {
  const int64_t half = int64_t{1} << (law.shift - 1);
  return (score * law.ma + half + (law.ma & law.mb & 1)) >> law.shift;
}

// y = (a * b * multiplier + half) >> shift, 8 or 16 bits.
struct MulLaw {
  int32_t multiplier = 0;
  int32_t shift = 0;
};
MulLaw make_mul8(double a_scale, double b_scale, double out_scale);
MulLaw make_mul16(double a_scale, double b_scale, double out_scale);
inline int64_t mul(int64_t a, int64_t b, MulLaw law) {
  return (a * b * law.multiplier + (int64_t{1} << (law.shift - 1))) >> law.shift;
}

// Change of width: scales are tied, scale8 = 256 * scale16 and scale4 = 4096 * scale16, so no
// multiplier is needed.
inline int16_t widen(int8_t a) { return static_cast<int16_t>(a * 256); }
inline int8_t narrow(int16_t a) {
  return static_cast<int8_t>(std::clamp((a + 128) >> 8, -128, 127));
}
inline int8_t narrow4(int16_t a) {
  return static_cast<int8_t>(std::clamp((a + 2048) >> 12, -8, 7));
}

// ---- RMSNorm ----------------------------------------------------------------------------------
//
//   y = floor(x * gamma / (out_scale * sqrt(mean(x_real^2) + eps)))
//
// With S = sum over d of x^2 and E = eps * d / x_scale^2 this is x * gamma * C / sqrt(S + E), where
// C = gamma_scale * sqrt(d) / out_scale. C is stored as mantissa * 2^-shift (31-bit mantissa). E
// has a fraction: for a row of small integers it is as large as S, and half a unit would be seen.
struct RmsNormLaw {
  int64_t epsilon = 0;   // E in steps of 2^-16, rounded half-up, below 2^60
  int64_t mantissa = 0;  // of C, in [2^30, 2^31)
  int32_t shift = 0;
};
RmsNormLaw make_rmsnorm(double x_scale, double gamma_scale, double out_scale, double eps, int d);

// The row's factor: floor(2^k * C / sqrt(S + E)) and k, from integers alone. S < 2^44, which 16-bit
// rows of up to 16384 numbers keep.
struct RmsNormFactor {
  int64_t factor = 0;
  int32_t shift = 0;
};
RmsNormFactor rmsnorm_factor(int64_t sum_of_squares, const RmsNormLaw& law);
inline int64_t rmsnorm(int64_t x, int64_t gamma, RmsNormFactor f) {
  return shift_right_floor(x * gamma * f.factor, f.shift);
}

// ---- Softmax ----------------------------------------------------------------------------------
//
// Exponentials have 15 bits and are cut, not rounded, and so are probabilities: small ones lose
// mass, as on the NPU. exp(-d * scale) for d = row maximum - x in 0..65535 is a product of two
// tables: d = 256 * i + j, exp = high[i] (2^-30 steps) * low[j] (2^-15 steps).
struct ExpTables {
  std::vector<uint32_t> high;  // [256] round(2^30 * exp(-256 * i * scale))
  std::vector<uint32_t> low;   // [256] round(2^15 * exp(-j * scale))
};
ExpTables make_exp_tables(double scale);
constexpr uint32_t kExpOfZero = 32767;  // 1 in steps of 2^-15, as large as 15 bits can hold
inline uint32_t exp_negative(uint32_t d, const uint32_t* high, const uint32_t* low) {
  return std::min(static_cast<uint32_t>((uint64_t{high[d >> 8]} * low[d & 255]) >> 30), kExpOfZero);
}

// The reciprocal of a row's sum of exponentials, in 14 bits: factor = 2^(29 + n) / sum, rounded
// half down, with the largest n such that sum >= 32767 * 2^n. A row's maximum adds 32767.
struct SoftmaxReciprocal {
  uint32_t factor = 0;  // 8192 .. 16384
  int32_t shift = 0;    // 13 + n
};
inline SoftmaxReciprocal softmax_reciprocal(uint64_t sum) {
  int n = 0;
  while (sum >= uint64_t{kExpOfZero} << (n + 1)) ++n;
  const uint64_t factor = ((uint64_t{1} << (29 + n)) + (sum - 1) / 2) / sum;
  return {static_cast<uint32_t>(std::min<uint64_t>(factor, 16384)), 13 + n};
}
// In steps of 1/65535; e * factor < 2^29.
inline uint16_t softmax_probability(uint32_t e, SoftmaxReciprocal r) {
  return static_cast<uint16_t>((e * r.factor) >> r.shift);
}

// ---- Unary functions by table -----------------------------------------------------------------

// SiLU for every stored integer of an 8- or 16-bit input, one rounding:
// floor(silu(x) / out_scale + 0.5) + out_zero_point, clamped. Index: q - qmin.
std::vector<int16_t> make_silu_table(int bits, double x_scale, double out_scale,
                                     int32_t out_zero_point);

// The parameters of one node; std::monostate where the operation needs none.
using Law = std::variant<std::monostate, Requant, AddLaw, MulLaw, RmsNormLaw>;

}  // namespace qnpu
