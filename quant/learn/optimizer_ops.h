// How weights in units of their scale change in a step: fused on the CPU, tensor expressions
// elsewhere.
#pragma once

#include "quant/learn/optimizer_kernels.h"
#include "quant/tensor.h"

namespace qnpu {

// A group's weights: x [N, K] in units of the rows' scales, the integers `codes` [N, K] that they
// round to (in the type of the matrix product), g [N, K] = d(loss) / d(integers), and by row the
// smallest and largest of them, qmin [N] and qmax [N].
struct RoundedWeights {
  torch::Tensor x, codes, g, qmin, qmax;
};

// codes = clamp(round(x), qmin, qmax)
void round_weights(RoundedWeights& w);

// Adam on x, straight through the rounding. x stays within half a step of the largest integer, so
// that it can always come back. Rounds again, and clears g. m, v [N, K].
void adam_weights(RoundedWeights& w, const AdamStep& step, torch::Tensor& m, torch::Tensor& v);

// d(loss) / d(log scale) by row, [N] fp64. If x is learned beside the scale, it stays where it is
// while the scale moves, and the sum is g * integer. If the weight scale * x is `fixed`, x moves
// against the scale, and inside the range the sum is g * (integer - x) (LSQ; method.md Eq. 1).
torch::Tensor scale_gradients(const RoundedWeights& w, bool fixed);

// g = 0 where a weight is clipped: what is left is d(loss) / d(x) of fixed weights.
void mask_clipped(RoundedWeights& w);

}  // namespace qnpu
