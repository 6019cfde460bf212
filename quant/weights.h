// Scales and integers of weights: symmetric, one scale per output channel (row), integers in
// [-7, 7] or [-8, 7] (4 bits) or [-127, 127] (8 bits). Rows are independent of each other, so any
// cut into ranges of rows, and any number of threads, gives the same numbers.
#pragma once

#include <cstdint>

#include "base/qparams.h"
#include "model/recipe.h"

namespace qnpu {

// Rows [n, k] of fp32 weights.
struct WeightRows {
  const float* data = nullptr;
  int64_t n = 0;
  int64_t k = 0;
};

// -7 .. 7, or with `narrow_range` false -8 .. 7, for 4 bits; -127 .. 127 for 8. An Error for
// others.
IntegerRange weight_range(const QuantSpec& spec);

// One scale per row into `scale` [n]; 0 for a row of zeros.
//   minmax      max|w| / qmax
//   percentile  the given percentile of |w| / qmax
//   mean3sigma  max|mean -+ 3 sigma| / 2^(bits-1)
//   mse         of 80 clips 0.3 .. 1 times max|w|, the one with the least squared error
void weight_scales(WeightRows rows, const QuantSpec& spec, bool rotated, float* scale);

// q = clamp(round(w / scale)), halves to even. `q` [n, k].
void round_weights(WeightRows rows, const float* scale, IntegerRange range, int8_t* q);

// Sum of (w - scale * q)^2.
double weight_error(WeightRows rows, const float* scale, const int8_t* q);
double sum_of_squares(WeightRows rows);

}  // namespace qnpu
