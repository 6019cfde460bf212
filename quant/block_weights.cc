#include "quant/block_weights.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace qnpu {

void block_scales(WeightRows rows, const QuantSpec& spec, bool rotated, float* block) {
  const int64_t blocks = rows.n * (rows.k / spec.block_size);
  weight_scales({rows.data, blocks, spec.block_size}, spec, rotated, block);
}

void channel_scales(std::span<const float> block, std::span<float> scale) {
  const size_t per_row = block.size() / scale.size();
  for (size_t n = 0; n < scale.size(); ++n) {
    const auto row = block.subspan(n * per_row, per_row);
    scale[n] = *std::max_element(row.begin(), row.end()) / kLargestBlockMultiplier;
  }
}

void round_block_weights(WeightRows rows, int block_size, const float* block, const float* scale,
                         int8_t* q) {
  const int64_t per_row = rows.k / block_size;
  const int64_t blocks = rows.n * per_row;
  std::vector<int> multiplier(static_cast<size_t>(blocks));
  std::vector<float> product(static_cast<size_t>(blocks));
  for (int64_t i = 0; i < blocks; ++i) {
    const float wished = std::floor(block[i] / scale[i / per_row] + 0.5f);
    multiplier[i] = static_cast<int>(std::clamp(wished, 1.0f, float{kLargestBlockMultiplier}));
    product[i] = scale[i / per_row] * multiplier[i];
  }
  round_weights({rows.data, blocks, block_size}, product.data(), weight_range({.bitwidth = 4}), q);
  for (int64_t i = 0; i < rows.n * rows.k; ++i) {
    q[i] = static_cast<int8_t>(q[i] * multiplier[i / block_size]);
  }
}

}  // namespace qnpu
