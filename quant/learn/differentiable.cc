#include "quant/learn/differentiable.h"

#include "quant/learn/ops.h"
#include "quant/learn/record.h"

namespace qnpu {

using torch::Tensor;

Tensor fake_quant(const Tensor& x, const Grid& grid) {
  const Tensor input = x.detach();
  return record(ops::fake_quant(input, grid, grid.scale, x.scalar_type()), {x},
                [=](Tensors g) -> Tensors {
                  return {ops::fake_quant_backward(g[0].contiguous(), input, grid).dx};
                });
}

Tensor rms_norm(const Tensor& x, const Tensor& gamma, int heads, double eps) {
  const Tensor input = x.detach();
  const Tensor weight = gamma.detach();
  const bool learn = gamma.requires_grad();
  return record(ops::rms_norm(input, weight, heads, eps), {x, gamma}, [=](Tensors g) -> Tensors {
    const Tensor dy = g[0].contiguous();
    return {ops::rms_norm_backward(dy, input, weight, heads, eps),
            learn ? plain::rms_norm_gamma_backward(dy, input, heads, eps) : Tensor()};
  });
}

Tensor rope(const Tensor& x, const Tensor& cos, const Tensor& sin, int heads) {
  const Tensor input = x.detach();
  return record(ops::rope(input, cos, sin, heads, 1.0f), {x}, [=](Tensors g) -> Tensors {
    const Tensor gradient = g[0].contiguous();
    return {ops::rope(gradient, cos, sin, heads, -1.0f)};
  });
}

Tensor silu_mul(const Tensor& gate, const Tensor& up, const Grid& grid) {
  const Tensor gates = gate.detach();
  const Tensor ups = up.detach();
  return record(ops::silu_mul(gates, ups, grid), {gate, up}, [=](Tensors g) -> Tensors {
    const Tensor gradient = g[0].contiguous();
    const auto [dgate, dup] = ops::silu_mul_backward(gradient, gates, ups, grid);
    return {dgate, dup};
  });
}

}  // namespace qnpu
