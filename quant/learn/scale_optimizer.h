// Steps of scales, few numbers each: in fp64, so that no small step is lost.
#pragma once

#include "model/recipe.h"
#include "quant/tensor.h"

namespace qnpu {

// Scales as logarithms [n], with what the optimizer remembers of them.
struct ScaleVector {
  torch::Tensor log_scale, m, v;  // fp64

  ScaleVector() = default;
  explicit ScaleVector(const torch::Tensor& scale);  // of any type, positive
  torch::Tensor scale(torch::ScalarType type) const { return log_scale.exp().to(type); }
};

struct ScaleRule {
  Optimizer optimizer = Optimizer::kAdam;
  double rate = 0.0;
  double momentum = 0.0;  // kSgd
  int step = 1;           // counted from 1: kAdam
};

// `gradient` [n] = d(loss) / d(log scale).
//   kAdam  log scale -= rate * (Adam's direction): relative steps, whatever the gradients' sizes
//   kSgd   scale -= rate * factor * d(loss) / d(scale), factor [n] or [1] = 1 / sqrt(N Qmax) of
//          LSQ (method.md 2.7); a scale cannot fall below kSmallestScale
void step_scales(ScaleVector& scales, const torch::Tensor& gradient, const torch::Tensor& factor,
                 const ScaleRule& rule);

}  // namespace qnpu
