// One linear's integers: y = requantize(sum x * q + bias) with real weights scale[n] * q[n, k].
//
// M[n] = x_scale * scale[n] / y_scale has 12 significant bits (then the NPU's arithmetic is ours to
// the bit): M is rounded first, the scale follows from it, and the weights are rounded with that.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "quant/weights.h"

namespace qnpu {

struct LinearToFreeze {
  std::string name;             // for errors
  WeightRows weight;            // [N, K] fp32
  const float* bias = nullptr;  // [N] fp32 or null
  std::vector<float> scale;     // [N] wished scale of each row; 0 for a row of zeros
  IntegerRange weight_range{-127, 127};
  int block_size = 0;         // inputs of a block; 0: none
  std::vector<float> blocks;  // [N, K / block_size] wished scales (block_weights.h)
  int activation_bits = 8;    // of the input: 4, 8 or 16; 4 make an 8-bit linear
  double x_scale = 0.0;
  double y_scale = 0.0;
};

struct FrozenLinear {
  std::vector<int8_t> q;          // [N, K]
  std::vector<float> scale;       // [N] snapped
  std::vector<int32_t> row_sum;   // [N]
  std::vector<int32_t> mantissa;  // [N]
  std::vector<int32_t> shift;     // [N]
  std::vector<int32_t> bias;      // [N] or empty; of a 16-bit linear divided by 256
};

// The numbers of 12 significant bits nearest to m, the nearest first. With some scales of input and
// output two of five are no product in single precision: of thirteen one is, all but certainly.
constexpr int kNearMultipliers = 13;
std::array<double, kNearMultipliers> nearest_multipliers(double m);

// The scale nearest to `wished` whose multiplier has 12 significant bits; 0 stays 0.
float snap_scale(double wished, double x_scale, double y_scale);

// Error naming the linear if a row's worst case does not fit into the int32 accumulator, a bias
// does not fit, or a multiplier is out of the law's bounds.
FrozenLinear freeze_linear(const LinearToFreeze& linear);

// [N, K] in -8..7 -> [N, K / 2], low nibble first. K must be even.
std::vector<uint8_t> pack_nibbles(const std::vector<int8_t>& q);

}  // namespace qnpu
