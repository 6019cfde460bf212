// Types of a graph's tensors, and the real numbers that stored integers stand for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace qnpu {

enum class OnnxType {
  kF32 = 1,
  kU8 = 2,
  kS8 = 3,
  kU16 = 4,
  kS32 = 6,
  kS64 = 7,
  kBool = 9,
  kS4 = 22
};

// Storage of real numbers in integers: real = scale * (q - zero_point).
struct Quantized {
  OnnxType type = OnnxType::kU8;
  float scale = 0.0f;
  int32_t zero_point = 0;
  bool operator==(const Quantized&) const = default;
};

// Of an activation, u8 or u16.
std::vector<float> to_reals(std::span<const std::byte> data, const Quantized& quantized);

// Of s4, s8 or s32 in equally long rows, each with a scale; nibbles have the first number in the
// low half.
std::vector<float> rows_to_reals(OnnxType type, std::span<const std::byte> data,
                                 std::span<const float> scales);

}  // namespace qnpu
