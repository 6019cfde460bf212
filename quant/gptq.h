// Integers for one linear's weights that keep its output, not the weights themselves, as near as
// possible: minimise for every row
//
//   f(q) = (w - s q)' H (w - s q),   H = sum over tokens of x x'  (x: the inputs as the NPU has
//   them)
//
// First GPTQ (Frantar et al. 2022; method.md 2.9): columns are rounded one after the other, the
// error of each is spread over those not yet rounded. Then, as f allows both in closed form, in
// turns: the scale that is best for the integers (s = q'Hw / q'Hq), and single integers moved where
// that lowers f (coordinate descent).
#pragma once

#include <functional>
#include <vector>

#include "base/qparams.h"
#include "quant/tensor.h"

namespace qnpu {

struct GptqProblem {
  torch::Tensor weight;       // [N, K] fp32: the weights wished for; tensors are on the CPU
  torch::Tensor hessian;      // [K, K] fp32 or fp64, symmetric
  IntegerRange range{-7, 7};  // of the integers
  double damping = 0.01;      // times the mean of H's diagonal, added to it
  bool order = true;          // columns by falling diagonal of H
  int descents = 3;           // turns of scale and coordinate descent
  // The nearest scale that the row may have (freeze_linear.h: snap_scale); empty: any.
  std::function<float(float scale)> snap;
};

struct GptqResult {
  torch::Tensor integers;    // [N, K] int8
  std::vector<float> scale;  // [N]
  double error = 0.0;        // sum of f over the rows, relative to sum of w' H w
  double gptq_error = 0.0;   // the same before the descents
};

// [K, K] fp64: H with `damping` times the mean of its diagonal added to it, and a little where all
// of it is 0. Error if it holds NaN or infinity.
torch::Tensor damped(const torch::Tensor& hessian, double damping);

// `scale` [N]: what to begin with; a row of zeros has scale 0 and stays zero.
GptqResult gptq(const GptqProblem& problem, std::vector<float> scale);

}  // namespace qnpu
