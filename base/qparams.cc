#include "base/qparams.h"

#include <array>

#include "base/status.h"

namespace qnpu {
namespace {

struct DTypeInfo {
  const char* name;
  int bits;
  IntegerRange range;
};

constexpr std::array<DTypeInfo, 6> kDTypes = {{
    {"s4", 4, {-8, 7}},
    {"s8", 8, {-128, 127}},
    {"s16", 16, {-32768, 32767}},
    {"u16", 16, {0, 65535}},
    {"s32", 32, {INT32_MIN, INT32_MAX}},
    {"f32", 32, {0, 0}},
}};

const DTypeInfo& info(DType dtype) { return kDTypes[static_cast<int>(dtype)]; }

}  // namespace

IntegerRange integer_range(DType dtype) { return info(dtype).range; }
int bitwidth(DType dtype) { return info(dtype).bits; }
int activation_bytes(DType dtype) { return (info(dtype).bits + 7) / 8; }
const char* dtype_name(DType dtype) { return info(dtype).name; }

DType dtype_from_name(const std::string& name) {
  for (size_t i = 0; i < kDTypes.size(); ++i) {
    if (name == kDTypes[i].name) return static_cast<DType>(i);
  }
  fail("'{}' is not a number type of this program (s4, s8, s16, u16, s32, f32)", name);
}

}  // namespace qnpu
