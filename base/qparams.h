// Number types and quantization parameters, with the meaning of ONNX QuantizeLinear:
//
//   real = scale * (q - zero_point)
//
// One struct for every tensor of the program; AIMET's and QNN's forms are projections made by
// export/. Weights are symmetric in [-7, 7] or [-8, 7] (4 bits) or [-127, 127] (8 bits), zero point
// 0; activations are signed inside, and the exporter stores them unsigned with 128 or 32768 added.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qnpu {

enum class DType { kS4, kS8, kS16, kU16, kS32, kF32 };

struct QParams {
  DType dtype = DType::kF32;
  std::vector<float> scale;         // one per tensor, or one per channel along `axis`
  std::vector<int32_t> zero_point;  // as many as scales
  int axis = -1;                    // -1: per tensor
  int block_size = 0;               // 0: not per block
};

// Smallest and largest stored integer of an activation (quant/weights.h has those of weights). A
// 4-bit activation is stored in a byte of its own, 4-bit weights two in a byte.
struct IntegerRange {
  int32_t qmin;
  int32_t qmax;
};
IntegerRange integer_range(DType dtype);

int bitwidth(DType dtype);
int activation_bytes(DType dtype);               // of one number in memory
const char* dtype_name(DType dtype);             // "s4", "s8", "s16", "u16", "s32", "f32"
DType dtype_from_name(const std::string& name);  // throws Error on another name

}  // namespace qnpu
