#include "export/stored.h"

namespace qnpu {
namespace {

template <typename T>
std::span<const T> as(std::span<const std::byte> data) {
  return {reinterpret_cast<const T*>(data.data()), data.size() / sizeof(T)};
}

template <typename T>
std::vector<float> reals_of(std::span<const T> values, const Quantized& q) {
  std::vector<float> reals;
  reals.reserve(values.size());
  for (const T x : values) reals.push_back(q.scale * static_cast<float>(x - q.zero_point));
  return reals;
}

}  // namespace

std::vector<float> to_reals(std::span<const std::byte> data, const Quantized& q) {
  return q.type == OnnxType::kU8 ? reals_of(as<uint8_t>(data), q) : reals_of(as<uint16_t>(data), q);
}

std::vector<float> rows_to_reals(OnnxType type, std::span<const std::byte> data,
                                 std::span<const float> scales) {
  const size_t count = type == OnnxType::kS4    ? 2 * data.size()
                       : type == OnnxType::kS32 ? data.size() / 4
                                                : data.size();
  const auto integer = [&](size_t i) -> int32_t {
    if (type == OnnxType::kS32) return as<int32_t>(data)[i];
    if (type == OnnxType::kS8) return as<int8_t>(data)[i];
    const int nibble = (std::to_integer<int>(data[i / 2]) >> (4 * (i % 2))) & 15;
    return nibble < 8 ? nibble : nibble - 16;
  };
  std::vector<float> reals(count);
  const size_t cols = count / scales.size();
  for (size_t i = 0; i < count; ++i) reals[i] = scales[i / cols] * static_cast<float>(integer(i));
  return reals;
}

}  // namespace qnpu
