#include "quant/freeze_linear.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "base/law.h"
#include "base/status.h"
#include "quant/block_weights.h"

namespace qnpu {
namespace {

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();

// Below this a row's largest product is far less than an output step; a coarser scale loses
// nothing.
const double kSmallestMultiplier = std::ldexp(1.0, -24);

bool is_wide(const LinearToFreeze& linear) { return linear.activation_bits == 16; }

struct Snapped {
  double multiplier;  // of 12 significant bits
  float scale;        // the weight scale that belongs to it
};

// The weight scale with which the NPU's compiler, which multiplies in single precision, comes
// nearest to the multiplier m.
float scale_for_multiplier(double m, double x_scale, double y_scale) {
  const float ratio = static_cast<float>(x_scale) / static_cast<float>(y_scale);
  const auto nearest = static_cast<float>(m * y_scale / x_scale);
  float best = nearest;
  for (const float scale : {std::nextafterf(nearest, 0.0f), std::nextafterf(nearest, HUGE_VALF)}) {
    const auto error = [&](float s) { return std::fabs(double{ratio * s} - m); };
    if (error(scale) < error(best)) best = scale;
  }
  return best;
}

// The compiler keeps all 24 bits of its product, so 16-bit results are exact only if it *is* a
// number of 12 bits. Not every such number is one; one of the nearest is.
Snapped snap(double wished, double x_scale, double y_scale) {
  const auto near_ones =
      nearest_multipliers(std::max(x_scale * wished / y_scale, kSmallestMultiplier));
  const float ratio = static_cast<float>(x_scale) / static_cast<float>(y_scale);
  for (const double near : near_ones) {
    const float scale = scale_for_multiplier(near, x_scale, y_scale);
    if (ratio * scale == near) return {near, scale};
  }
  return {near_ones[0], scale_for_multiplier(near_ones[0], x_scale, y_scale)};
}

// Requantization of row n, and the scale that belongs to it.
void snap_row(const LinearToFreeze& linear, int64_t n, FrozenLinear& out) {
  const Snapped snapped = snap(linear.scale[n], linear.x_scale, linear.y_scale);
  out.scale[n] = snapped.scale;
  const Requant r =
      is_wide(linear) ? make_requant16(snapped.multiplier) : make_requant8(snapped.multiplier);
  out.mantissa[n] = r.mantissa;
  out.shift[n] = r.shift;
}

int64_t quantized_bias(const LinearToFreeze& linear, int64_t n, const FrozenLinear& out) {
  const double step = linear.x_scale * out.scale[n];
  const double steps = std::floor(linear.bias[n] / step + 0.5);
  if (!(std::fabs(steps) < std::ldexp(1.0, 40))) {
    fail("linear '{}': bias {} of channel {} does not fit its scale {}", linear.name,
         linear.bias[n], n, step);
  }
  const auto bias = static_cast<int64_t>(steps);
  return is_wide(linear) ? bias16(bias) : bias;
}

// The largest magnitude that an int32 accumulator of this row can reach. 16-bit inputs go through
// as two planes of 8 bits, x = 256 * high + low with low in 0..255, and their bias is added later.
int64_t worst_case(const LinearToFreeze& linear, int64_t weight_sum, int64_t bias) {
  if (is_wide(linear)) return 255 * weight_sum;
  const int64_t largest = int64_t{1} << (linear.activation_bits - 1);  // |x| <= 8 or 128
  return largest * weight_sum + std::abs(bias);
}

void finish_row(const LinearToFreeze& linear, int64_t n, FrozenLinear& out) {
  const int8_t* q = out.q.data() + n * linear.weight.k;
  int64_t sum = 0;
  int64_t magnitude = 0;
  for (int64_t i = 0; i < linear.weight.k; ++i) {
    sum += q[i];
    magnitude += std::abs(q[i]);
  }
  const int64_t bias = linear.bias == nullptr ? 0 : quantized_bias(linear, n, out);
  if (worst_case(linear, magnitude, bias) > kInt32Max || std::abs(bias) > kInt32Max) {
    fail("linear '{}': channel {} can overflow its int32 accumulator ({} > {}); split the layer",
         linear.name, n, std::max(worst_case(linear, magnitude, bias), std::abs(bias)), kInt32Max);
  }
  out.row_sum[n] = static_cast<int32_t>(sum);
  if (linear.bias != nullptr) out.bias[n] = static_cast<int32_t>(bias);
}

}  // namespace

std::array<double, kNearMultipliers> nearest_multipliers(double m) {
  const double first = snap_multiplier(m);
  const double step = std::ldexp(1.0, std::ilogb(first) - 11);
  const auto beside = [&](int steps) { return snap_multiplier(first + steps * step); };
  std::array<double, kNearMultipliers> result{first};
  for (int i = 1; i < kNearMultipliers; ++i) result[i] = beside(i % 2 == 1 ? (i + 1) / 2 : -i / 2);
  return result;
}

float snap_scale(double wished, double x_scale, double y_scale) {
  if (wished == 0.0) return 0.0f;
  return snap(wished, x_scale, y_scale).scale;
}

FrozenLinear freeze_linear(const LinearToFreeze& linear) {
  const int64_t rows = linear.weight.n;
  FrozenLinear out;
  out.q.resize(static_cast<size_t>(rows * linear.weight.k));
  out.scale.resize(rows);
  out.row_sum.resize(rows);
  out.mantissa.resize(rows);
  out.shift.resize(rows);
  if (linear.bias != nullptr) out.bias.resize(rows);
  try {
    for (int64_t n = 0; n < rows; ++n) snap_row(linear, n, out);
  } catch (const Error& error) {
    fail("linear '{}': {}", linear.name, error.what());
  }
  if (linear.block_size != 0) {
    round_block_weights(linear.weight, linear.block_size, linear.blocks.data(), out.scale.data(),
                        out.q.data());
  } else {
    round_weights(linear.weight, out.scale.data(), linear.weight_range, out.q.data());
  }
  for (int64_t n = 0; n < rows; ++n) {
    // Its snapped scale is far smaller than any weight.
    if (linear.scale[n] == 0.0f)
      std::fill_n(out.q.data() + n * linear.weight.k, linear.weight.k, 0);
    finish_row(linear, n, out);
  }
  return out;
}

std::vector<uint8_t> pack_nibbles(const std::vector<int8_t>& q) {
  QNPU_ASSERT(q.size() % 2 == 0);
  std::vector<uint8_t> packed(q.size() / 2);
  for (size_t i = 0; i < packed.size(); ++i) {
    packed[i] = static_cast<uint8_t>((q[2 * i] & 15) | ((q[2 * i + 1] & 15) << 4));
  }
  return packed;
}

}  // namespace qnpu
