#include "quant/learn/linear_group.h"

#include "quant/learn/ops.h"

namespace qnpu {
namespace {

using torch::Tensor;

struct Part {
  int64_t first;
  Tensor factor, scale, bias;
  Grid out;
};

// The group's vectors, cut for each part.
std::vector<Part> cut(const LinearGroup& group, const Tensor& bias) {
  const Tensor factor = group.input.used() ? group.scale * group.input.scale : group.scale;
  std::vector<Part> parts;
  for (const LinearPart& part : group.parts) {
    const auto rows = [&](const Tensor& t) { return t.narrow(0, part.first, part.rows); };
    parts.push_back({part.first, rows(factor), rows(group.scale),
                     bias.defined() ? rows(bias) : Tensor(), part.out});
  }
  return parts;
}

// g [T, N]: gradients of the real outputs times the rows' scales.
Tensor scaled_gradients(const Tensors& gradients, const Tensor& sums, const LinearGroup& group,
                        const Tensor& bias) {
  Tensor g = torch::empty({sums.size(0), group.codes.size(0)}, group.codes.options());
  const std::vector<Part> parts = cut(group, bias);
  for (size_t i = 0; i < parts.size(); ++i) {
    const Part& part = parts[i];
    if (gradients[i].defined()) {
      ops::scale_columns_backward(gradients[i].contiguous(), sums, part.first, part.factor,
                                  part.bias, part.scale, part.out, g);
    } else {
      g.narrow(1, part.first, part.factor.size(0)).zero_();
    }
  }
  return g;
}

// With y = s_x c_x (s_w c_w)' and g = dy * s_w: gradient of x-rounded is g c_w, of c_w is s_x g'
// c_x.
Tensor backward(const Tensor& g, const Tensor& x, const Tensor& codes_x, LinearGroup& group) {
  const double x_scale = group.input.used() ? group.input.scale : 1.0;
  if (group.codes_grad.defined()) {
    ops::accumulate(ops::product(g.t(), codes_x), x_scale, group.codes_grad);
  }
  const Tensor rounded_grad = ops::product(g, group.codes);
  if (!group.input.used()) return rounded_grad.to(x.scalar_type());
  const ops::FakeQuantGradient gradient = ops::fake_quant_backward(rounded_grad, x, group.input);
  group.input_scale_grad += gradient.dscale;
  return gradient.dx;
}

}  // namespace

Tensors linears(const Tensor& x, LinearGroup& group, const Tensor& bias) {
  Tensors outputs;
  Tensor codes_x;
  Tensor sums;
  {
    const torch::NoGradGuard no_grad;
    const auto type = group.codes.scalar_type();
    codes_x = group.input.used() ? ops::fake_quant(x, group.input, 1.0f, type) : x.to(type);
    sums = ops::product(codes_x, group.codes.t());
    for (const Part& part : cut(group, bias)) {
      outputs.push_back(
          ops::scale_columns(sums, part.first, part.factor, part.bias, part.out, type));
    }
  }
  const Tensor input = x.detach();
  if (torch::GradMode::is_enabled() && group.local_weight > 0.0 && group.input.used()) {
    group.input_scale_grad += group.local_weight * ops::error_gradient(input, group.input);
  }
  const bool learn_bias = bias.defined() && bias.requires_grad();
  const Tensor b = bias.defined() ? bias.detach() : bias;
  const Tensors inputs = learn_bias ? Tensors{x, bias} : Tensors{x};
  record(outputs, inputs, [=, &group](Tensors gradients) -> Tensors {
    const Tensor g = scaled_gradients(gradients, sums, group, b);
    const Tensor dx = backward(g, input, codes_x, group);
    if (!learn_bias) return {dx};
    return {dx, g.sum(0, false, sums.scalar_type()) / group.scale};
  });
  return outputs;
}

}  // namespace qnpu
