// Gradients of the hand-written backward passes against libtorch's own, from formulas that do not
// share code with them: in fp64 (tensor expressions) and in fp32 (fused).
#include "quant/learn/differentiable.h"

#include <gtest/gtest.h>

#include "quant/learn/attention.h"
#include "quant/learn/linear_group.h"
#include "quant/test_models.h"

namespace qnpu {
namespace {

using torch::Tensor;
using Function = std::function<Tensor(const Tensors&)>;

class Differentiable : public testing::TestWithParam<torch::ScalarType> {
 protected:
  void SetUp() override { torch::manual_seed(2); }
  Tensor random(std::vector<int64_t> shape) { return torch::randn(shape, GetParam()); }
  double tolerance() const { return GetParam() == torch::kFloat64 ? 1e-12 : 1e-5; }

  // Value and gradients of both at the same inputs, along one random direction of the outputs.
  void compare(const Tensors& inputs, const Function& ours, const Function& theirs) {
    Tensors a, b;
    for (const Tensor& x : inputs) {
      a.push_back(x.detach().clone().requires_grad_(true));
      b.push_back(x.detach().clone().requires_grad_(true));
    }
    const Tensor y = ours(a), z = theirs(b);
    EXPECT_LT(relative_difference(y, z), tolerance());
    const Tensor direction = torch::randn_like(z);
    const Tensors da = torch::autograd::grad({y}, a, {direction.to(y.scalar_type())});
    const Tensors db = torch::autograd::grad({z}, b, {direction});
    for (size_t i = 0; i < da.size(); ++i) {
      // Of values around 1; all zero where attention sees one position only.
      const double size = std::max(1.0, db[i].abs().max().item<double>());
      EXPECT_LT(max_difference(da[i], db[i]), tolerance() * size) << "input " << i;
    }
  }
};

// Rounding whose gradient is that of a clamp.
Tensor straight_through(const Tensor& x, const Grid& grid) {
  const Tensor clipped = x.clamp(grid.scale * grid.low, grid.scale * grid.high);
  const Tensor rounded = (clipped / grid.scale).round() * grid.scale;
  return clipped + (rounded - clipped).detach();
}

constexpr Grid kGrid{0.0625f, -20.0f, 100.0f};  // a power of two: the same ties in every type

TEST_P(Differentiable, FakeQuant) {
  compare(
      {random({30, 8}) * 4}, [](const Tensors& x) { return fake_quant(x[0], kGrid); },
      [](const Tensors& x) { return straight_through(x[0], kGrid); });
}

TEST_P(Differentiable, RmsNorm) {
  const Tensor gamma = random({6});
  compare(
      {random({5, 18})}, [&](const Tensors& x) { return rms_norm(x[0], gamma, 3, 0.01); },
      [&](const Tensors& x) {
        const Tensor parts = x[0].view({5, 3, 6});
        const Tensor size = (parts.pow(2).sum(2, true) / 6 + 0.01).sqrt();
        return (parts / size * gamma).view({5, 18});
      });
}

TEST_P(Differentiable, Rope) {
  const Tensor angle = random({4, 3});
  const Tensor cos = angle.cos(), sin = angle.sin();
  compare(
      {random({8, 12})}, [&](const Tensors& x) { return rope(x[0], cos, sin, 2); },
      [&](const Tensors& x) {  // 2 sequences of 4 tokens, 2 heads of 6
        const Tensor heads = x[0].view({2, 4, 2, 6});
        const Tensor halves = torch::cat({-heads.narrow(3, 3, 3), heads.narrow(3, 0, 3)}, 3);
        const auto wide = [](const Tensor& t) { return torch::cat({t, t}, 1).view({1, 4, 1, 6}); };
        return (heads * wide(cos) + halves * wide(sin)).view({8, 12});
      });
}

TEST_P(Differentiable, SiluMul) {
  for (const Grid& grid : {Grid{}, Grid{0.0625f, -4.0f, 24.0f}}) {
    compare(
        {random({9, 11}) * 2, random({9, 11})},
        [&](const Tensors& x) { return silu_mul(x[0], x[1], grid); },
        [&](const Tensors& x) {
          const Tensor silu = x[0] / (1 + (-x[0]).exp());
          return (grid.used() ? straight_through(silu, grid) : silu) * x[1];
        });
  }
}

// All heads at once, with a mask.
Tensor attention_by_definition(const Tensors& x, const AttentionSpec& s) {
  const int64_t prefix = s.prefix_k.defined() ? s.prefix_k.size(0) : 0;
  const auto rows = [&](const Tensor& t, const Tensor& first) {
    Tensor all = t.view({s.batch, s.tokens, -1});
    if (prefix > 0) all = torch::cat({first.unsqueeze(0).expand({s.batch, -1, -1}), all}, 1);
    const Tensor heads = all.view({s.batch, prefix + s.tokens, s.kv_heads, s.head_dim});
    return heads.repeat_interleave(s.group, 2).transpose(1, 2);
  };
  const Tensor q = x[0].view({s.batch, s.tokens, s.kv_heads * s.group, s.head_dim}).transpose(1, 2);
  const Tensor scores = q.matmul(rows(x[1], s.prefix_k).transpose(2, 3)) * s.scale;
  const Tensor future = torch::ones({s.tokens, prefix + s.tokens}, torch::kBool).triu(prefix + 1);
  const Tensor p = scores.masked_fill(future, -INFINITY).softmax(3);
  return p.matmul(rows(x[2], s.prefix_v)).transpose(1, 2).reshape({s.batch * s.tokens, -1});
}

TEST_P(Differentiable, Attention) {
  for (const int64_t tokens : {1, 7, 300}) {  // 300: three blocks
    for (const bool prefix : {false, true}) {
      AttentionSpec s;
      s.batch = 2;
      s.tokens = tokens;
      s.kv_heads = 2;
      s.group = 3;
      s.head_dim = 8;
      s.scale = 0.7;
      if (prefix) {
        s.prefix_k = random({3, 16});
        s.prefix_v = random({3, 16});
      }
      compare(
          {random({2 * tokens, 48}), random({2 * tokens, 16}), random({2 * tokens, 16})},
          [&](const Tensors& x) { return attention(x[0], x[1], x[2], s); },
          [&](const Tensors& x) { return attention_by_definition(x, s); });
    }
  }
}

// The same with the scale's gradient: inside of the rounding's remainder, outside of the limit.
Tensor rounded_by(const Tensor& scale, const Tensor& x, const Grid& grid) {
  const Tensor clipped = (x / scale).clamp(grid.low, grid.high);
  return (clipped + (clipped.round() - clipped).detach()) * scale;
}

// Two linears of one input: outputs, and gradients of input, integers and the scales of input and
// first output.
TEST_P(Differentiable, Linears) {
  for (const Grid& out : {Grid{}, Grid{0.125f, -30.0f, 40.0f}}) {
    LinearGroup group;
    group.parts = {{0, 0, 5, out}, {1, 5, 4, Grid{}}};
    group.input = {0.0625f, -20.0f, 19.0f};
    group.codes = torch::randint(-7, 8, {9, 12}).to(GetParam());
    group.scale = random({9}).abs() + 0.1;
    const Tensor bias = random({9});
    group.codes_grad = torch::zeros_like(group.codes);
    group.learn_outputs = true;
    const Tensor codes = group.codes.clone().requires_grad_(true);
    const Tensor scale = torch::full({}, group.input.scale, GetParam()).requires_grad_(true);
    const Tensor out_scale = torch::full({}, out.scale, GetParam()).requires_grad_(true);
    const Tensor x = random({30, 12});
    const Function theirs = [&](const Tensors& in) {
      const Tensor w = codes * group.scale.unsqueeze(1);
      const Tensor y = rounded_by(scale, in[0], group.input).matmul(w.t()) + bias;
      const Tensor first = y.narrow(1, 0, 5);
      return torch::cat({out.used() ? rounded_by(out_scale, first, out) : first + 0 * out_scale,
                         y.narrow(1, 5, 4)},
                        1);
    };
    const Tensor ours_x = x.clone().requires_grad_(true), theirs_x = x.clone().requires_grad_(true);
    const Tensor y = torch::cat(linears(ours_x, group, bias), 1), z = theirs({theirs_x});
    EXPECT_LT(relative_difference(y, z), tolerance());
    const Tensor direction = torch::randn_like(z);
    const Tensor dx = torch::autograd::grad({y}, {ours_x}, {direction})[0];
    const Tensors wanted =
        torch::autograd::grad({z}, {theirs_x, codes, scale, out_scale}, {direction});
    EXPECT_LT(relative_difference(dx, wanted[0]), tolerance());
    EXPECT_LT(relative_difference(group.codes_grad, wanted[1]), tolerance());
    EXPECT_NEAR(group.input_scale_grad, wanted[2].item<double>(),
                10 * tolerance() * std::abs(wanted[2].item<double>()));
    EXPECT_NEAR(group.parts[0].out_scale_grad, wanted[3].item<double>(),
                10 * tolerance() * std::abs(wanted[3].item<double>()));
    EXPECT_EQ(group.parts[1].out_scale_grad, 0.0);
  }
}

// Each token by its own scale, straight through.
TEST_P(Differentiable, LinearsOfTokensWithTheirScales) {
  LinearGroup group;
  group.parts = {{0, 0, 5, Grid{}}, {1, 5, 4, Grid{}}};
  group.token_qmax = 7;
  group.codes = torch::randint(-7, 8, {9, 12}).to(GetParam());
  group.scale = random({9}).abs() + 0.1;
  const Tensor bias = random({9});
  group.codes_grad = torch::zeros_like(group.codes);
  const Tensor codes = group.codes.clone().requires_grad_(true);
  const Tensor x = random({30, 12}) * torch::logspace(-2, 2, 30).to(GetParam()).unsqueeze(1);
  const Tensor ours_x = x.clone().requires_grad_(true), theirs_x = x.clone().requires_grad_(true);
  const Tensor step = std::get<0>(x.abs().max(1, /*keepdim=*/true)) / 7;
  const Tensor rounded = theirs_x + ((x / step).round() * step - x);
  const Tensor z = rounded.matmul((codes * group.scale.unsqueeze(1)).t()) + bias;
  const Tensor y = torch::cat(linears(ours_x, group, bias), 1);
  EXPECT_LT(relative_difference(y, z), tolerance());
  EXPECT_GT(relative_difference(rounded, x), 0.01);
  const Tensor direction = torch::randn_like(z);
  const Tensor dx = torch::autograd::grad({y}, {ours_x}, {direction})[0];
  const Tensors wanted = torch::autograd::grad({z}, {theirs_x, codes}, {direction});
  EXPECT_LT(relative_difference(dx, wanted[0]), tolerance());
  EXPECT_LT(relative_difference(group.codes_grad, wanted[1]), tolerance());
  EXPECT_EQ(group.input_scale_grad, 0.0);
}

INSTANTIATE_TEST_SUITE_P(Types, Differentiable, testing::Values(torch::kFloat32, torch::kFloat64),
                         [](const auto& info) {
                           return info.param == torch::kFloat32 ? "Fp32" : "Fp64";
                         });

}  // namespace
}  // namespace qnpu
