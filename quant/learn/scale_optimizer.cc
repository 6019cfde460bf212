#include "quant/learn/scale_optimizer.h"

#include <cmath>

#include "quant/learn/optimizer_kernels.h"

namespace qnpu {

using torch::Tensor;

constexpr double kSmallestScale = 1e-8;

ScaleVector::ScaleVector(const Tensor& scale)
    : log_scale(scale.to(torch::kFloat64).log()),
      m(torch::zeros_like(log_scale)),
      v(torch::zeros_like(log_scale)) {}

void step_scales(ScaleVector& scales, const Tensor& gradient, const Tensor& factor,
                 const ScaleRule& rule) {
  const torch::NoGradGuard no_grad;
  if (rule.optimizer == Optimizer::kAdam) {
    const AdamStep adam;
    scales.m.mul_(adam.beta_m).add_(gradient, 1.0 - adam.beta_m);
    scales.v.mul_(adam.beta_v).addcmul_(gradient, gradient, 1.0 - adam.beta_v);
    const Tensor m = scales.m / (1.0 - std::pow(adam.beta_m, rule.step));
    const Tensor v = scales.v / (1.0 - std::pow(adam.beta_v, rule.step));
    scales.log_scale.sub_(rule.rate * m / (v.sqrt() + adam.epsilon));
    return;
  }
  const Tensor scale = scales.log_scale.exp();
  scales.m.mul_(rule.momentum).add_(factor * gradient / scale);
  scales.log_scale.copy_((scale - rule.rate * scales.m).clamp_min(kSmallestScale).log());
}

}  // namespace qnpu
