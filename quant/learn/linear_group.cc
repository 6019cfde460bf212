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

// g [T, N]: gradients of the real outputs times the rows' scales. Adds to those of the parts'
// grids.
Tensor scaled_gradients(const Tensors& gradients, const Tensor& sums, LinearGroup& group,
                        const Tensor& bias) {
  Tensor g = torch::empty({sums.size(0), group.codes.size(0)}, group.codes.options());
  const std::vector<Part> parts = cut(group, bias);
  for (size_t i = 0; i < parts.size(); ++i) {
    const Part& part = parts[i];
    if (!gradients[i].defined()) {
      g.narrow(1, part.first, part.factor.size(0)).zero_();
      continue;
    }
    const Tensor dy = gradients[i].contiguous();
    ops::scale_columns_backward(dy, sums, part.first, part.factor, part.bias, part.scale, part.out,
                                g);
    if (group.learn_outputs && part.out.used()) {
      const Tensor y =
          ops::scale_columns(sums, part.first, part.factor, part.bias, Grid{}, sums.scalar_type());
      group.parts[i].out_scale_grad += ops::fake_quant_backward(dy, y, part.out).dscale;
    }
  }
  return g;
}

// The integers of the input in the type of the weights' (the input itself if it is not rounded),
// and the tokens' scales [T, 1] where each has its own.
struct RoundedInput {
  Tensor codes, token_scale;
};

RoundedInput rounded_input(const Tensor& x, const LinearGroup& group) {
  const auto type = group.codes.scalar_type();
  if (group.input.used()) return {ops::fake_quant(x, group.input, 1.0f, type), {}};
  if (group.token_qmax == 0.0f) return {x.to(type), {}};
  const plain::RoundedRows rows = plain::round_rows(x, group.token_qmax);
  return {rows.codes.to(type), rows.scale};
}

// With y = s_x c_x (s_w c_w)' and g = dy * s_w: gradient of x-rounded is g c_w, of c_w is g' s_x
// c_x.
Tensor backward(const Tensor& g, const Tensor& x, const RoundedInput& input, LinearGroup& group) {
  if (group.codes_grad.defined()) {
    const double x_scale = group.input.used() ? group.input.scale : 1.0;
    const Tensor by_token =
        input.token_scale.defined() ? (g * input.token_scale).to(g.scalar_type()) : g;
    ops::accumulate(ops::product(by_token.t(), input.codes), x_scale, group.codes_grad);
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
  RoundedInput rounded;
  Tensor sums;
  {
    const torch::NoGradGuard no_grad;
    const auto type = group.codes.scalar_type();
    rounded = rounded_input(x, group);
    sums = ops::product(rounded.codes, group.codes.t());
    if (rounded.token_scale.defined()) sums.mul_(rounded.token_scale);
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
    const Tensor dx = backward(g, input, rounded, group);
    if (!learn_bias) return {dx};
    return {dx, g.sum(0, false, sums.scalar_type()) / group.scale};
  });
  return outputs;
}

}  // namespace qnpu
