// Scalars of the fused kernels: bf16, rounding and exp in forms that compilers vectorise.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace qnpu::lanes {

// The upper half of a float, as torch's kBFloat16 stores it.
struct Bf16 {
  uint16_t bits;
};

inline float load(float x) { return x; }
inline float load(Bf16 x) { return std::bit_cast<float>(uint32_t{x.bits} << 16); }

inline void store(float& to, float x) { to = x; }
// Nearest, halves to even.
inline void store(Bf16& to, float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  to.bits = static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Nearest integer, halves to even, for |x| < 2^22: adding 1.5 * 2^23 leaves no room for fractions.
inline float round_half_even(float x) {
  constexpr float kMagic = 12582912.0f;
  return (x + kMagic) - kMagic;
}

// NaN stays NaN.
inline float clamp(float x, float low, float high) { return std::min(std::max(x, low), high); }

// e^x = 2^n e^r with |r| <= ln(2) / 2 and e^r by its Taylor polynomial of degree 6: relative error
// below 3e-7. Arguments are clamped to [-87, 88].
inline float exp(float x) {
  x = clamp(x, -87.0f, 88.0f);
  const float n = round_half_even(x * 1.44269504f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exp(-x)); }

}  // namespace qnpu::lanes
