// IEEE half precision, in which stored logits are kept.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace qnpu {

// Both ways scale by 2^112, the difference of the exponents' biases; then half's bits are the upper
// ones of the float's, subnormal numbers included.
inline float half_to_float(uint16_t half) {
  const float magnitude = std::bit_cast<float>(uint32_t{half & 0x7fffu} << 13) * 0x1p112f;
  return half & 0x8000u ? -magnitude : magnitude;
}

// To nearest, ties to even; magnitudes above 65504 become 65504. Not for NaN and infinity.
inline uint16_t float_to_half(float value) {
  const float scaled = std::min(std::fabs(value), 65504.0f) * 0x1p-112f;
  uint32_t bits = std::bit_cast<uint32_t>(scaled);
  bits += 0xfff + (bits >> 13 & 1);
  return static_cast<uint16_t>(bits >> 13 | (std::signbit(value) ? 0x8000u : 0));
}

}  // namespace qnpu
