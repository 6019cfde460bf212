#include "quant/learn/plain_ops.h"

namespace qnpu::plain {
namespace {

// Arithmetic is fp32 at least.
torch::ScalarType wide(const Tensor& x) {
  return x.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
}
Tensor widen(const Tensor& x) { return x.to(wide(x)); }

Tensor steps(const Tensor& x, const Grid& grid) { return widen(x) / grid.scale; }

Tensor inside(const Tensor& v, const Grid& grid) { return (v >= grid.low) & (v <= grid.high); }

Tensor rounded(const Tensor& x, const Grid& grid) {
  return grid.used() ? fake_quant(x, grid, grid.scale, wide(x)) : widen(x);
}

Tensor by_heads(const Tensor& x, int heads) {
  return x.view({x.size(0), heads, x.size(1) / heads});
}

Tensor real_columns(const Tensor& acc, int64_t first, const Tensor& factor, const Tensor& bias) {
  const Tensor y = widen(acc.narrow(1, first, factor.size(0))) * factor;
  return bias.defined() ? y + bias : y;
}

// [m, C]: positions that row r does not see.
Tensor hidden(const Tensor& scores, int64_t visible, int64_t group) {
  const auto options = torch::TensorOptions().dtype(torch::kInt64).device(scores.device());
  const Tensor rows = torch::arange(scores.size(0), options);
  const Tensor seen = torch::floor_divide(rows, group) + visible;
  return torch::arange(scores.size(1), options).unsqueeze(0) >= seen.unsqueeze(1);
}

Tensor masked(const Tensor& scores, int64_t visible, int64_t group, double scale) {
  return (widen(scores) * scale).masked_fill(hidden(scores, visible, group), -INFINITY);
}

Tensor logits_of(const Tensor& acc, const Tensor& scale) {
  return scale.defined() ? widen(acc) * scale : widen(acc);
}

void write_gradient(const Tensor& dz, const Tensor& scale, double factor, Tensor& dacc) {
  dacc.copy_(scale.defined() ? dz * scale * factor : dz * factor);
}

}  // namespace

Tensor fake_quant(const Tensor& x, const Grid& grid, float step, torch::ScalarType type) {
  return (steps(x, grid).round().clamp(grid.low, grid.high) * step).to(type);
}

FakeQuantGradient fake_quant_backward(const Tensor& g, const Tensor& x, const Grid& grid) {
  const Tensor v = steps(x, grid);
  const Tensor in = inside(v, grid);
  const Tensor q = v.round().clamp(grid.low, grid.high);
  const Tensor gradient = widen(g);
  const Tensor slope = torch::where(in, q - v, q);
  return {(gradient * in).to(x.scalar_type()),
          (gradient * slope).sum(torch::kFloat64).item<double>()};
}

RoundedRows round_rows(const Tensor& x, float qmax) {
  const Tensor values = widen(x);
  const Tensor scale = values.abs().amax(1, /*keepdim=*/true).clamp_min(1e-12) / qmax;
  return {(values / scale).round(), scale};
}

double error_gradient(const Tensor& x, const Grid& grid) {
  const Tensor v = steps(x, grid).to(torch::kFloat64);
  const Tensor q = v.round().clamp(grid.low, grid.high);
  const Tensor d = torch::where(inside(v, grid), q - v, q);
  const double squares = v.square().sum().item<double>();
  if (squares == 0.0) return 0.0;
  return 2.0 / grid.scale * ((q - v) * d).sum().item<double>() / squares;
}

Tensor scale_columns(const Tensor& acc, int64_t first, const Tensor& factor, const Tensor& bias,
                     const Grid& grid, torch::ScalarType type) {
  return rounded(real_columns(acc, first, factor, bias), grid).to(type);
}

void scale_columns_backward(const Tensor& dy, const Tensor& acc, int64_t first,
                            const Tensor& factor, const Tensor& bias, const Tensor& scale,
                            const Grid& grid, Tensor& g) {
  Tensor scaled = widen(dy) * scale;
  if (grid.used()) {
    scaled = scaled * inside(steps(real_columns(acc, first, factor, bias), grid), grid);
  }
  g.narrow(1, first, factor.size(0)).copy_(scaled);
}

void accumulate(const Tensor& add, double factor, Tensor& total) {
  total.add_(add.to(total.scalar_type()), factor);
}

Tensor rms_norm(const Tensor& x, const Tensor& gamma, int heads, double eps) {
  const Tensor parts = widen(by_heads(x, heads));
  const Tensor r = (parts.square().mean(-1, /*keepdim=*/true) + eps).rsqrt();
  return (parts * r * gamma).view(x.sizes()).to(x.scalar_type());
}

Tensor rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& gamma, int heads,
                         double eps) {
  const Tensor parts = widen(by_heads(x, heads));
  const Tensor g = widen(by_heads(dy, heads)) * gamma;
  const Tensor r = (parts.square().mean(-1, /*keepdim=*/true) + eps).rsqrt();
  const Tensor along = (g * parts).mean(-1, /*keepdim=*/true) * r * r;
  return (r * (g - parts * along)).view(x.sizes()).to(x.scalar_type());
}

Tensor rms_norm_gamma_backward(const Tensor& dy, const Tensor& x, int heads, double eps) {
  const Tensor parts = widen(by_heads(x, heads));
  const Tensor r = (parts.square().mean(-1, /*keepdim=*/true) + eps).rsqrt();
  return (widen(by_heads(dy, heads)) * parts * r).sum(torch::IntArrayRef{0, 1});
}

Tensor rope(const Tensor& x, const Tensor& cos, const Tensor& sin, int heads, float sign) {
  const int64_t t = cos.size(0);
  const int64_t half = cos.size(1);
  const Tensor halves = widen(x.view({x.size(0) / t, t, heads, 2, half}));
  const Tensor a = halves.select(3, 0);
  const Tensor b = halves.select(3, 1);
  const Tensor c = cos.view({1, t, 1, half});
  const Tensor s = sin.view({1, t, 1, half}) * sign;
  return torch::stack({a * c - b * s, b * c + a * s}, 3).view(x.sizes()).to(x.scalar_type());
}

Tensor silu_mul(const Tensor& gate, const Tensor& up, const Grid& grid) {
  return rounded(torch::silu(widen(gate)), grid) * widen(up);
}

SiluMulGradient silu_mul_backward(const Tensor& dy, const Tensor& gate, const Tensor& up,
                                  const Grid& grid) {
  const Tensor g = widen(gate);
  const Tensor s = g.sigmoid();
  const Tensor silu = g * s;
  Tensor dgate = dy * widen(up) * (s + silu * (1.0 - s));
  if (grid.used()) dgate = dgate * inside(steps(silu, grid), grid);
  return {dgate.to(gate.scalar_type()), (dy * rounded(silu, grid)).to(up.scalar_type())};
}

Tensor log_sums(const Tensor& scores, int64_t visible, int64_t group, double scale) {
  return masked(scores, visible, group, scale).logsumexp(1);
}

Tensor probabilities(const Tensor& scores, int64_t visible, int64_t group, double scale,
                     const Tensor& log_sums, torch::ScalarType type) {
  return (masked(scores, visible, group, scale) - log_sums.unsqueeze(1)).exp().to(type);
}

Tensor softmax_backward(const Tensor& dp, const Tensor& p, int64_t visible, int64_t group,
                        double scale, const Tensor& delta) {
  const Tensor ds = widen(p) * (dp - delta.unsqueeze(1)) * scale;
  return ds.masked_fill(hidden(dp, visible, group), 0.0).to(p.scalar_type());
}

Tensor row_dots(const Tensor& a, const Tensor& b) { return (widen(a) * widen(b)).sum(1); }

double cross_entropy(const Tensor& acc, const Tensor& scale, const Tensor& targets, double factor,
                     Tensor& dacc) {
  const Tensor log_q = torch::log_softmax(logits_of(acc, scale), 1);
  const Tensor picked = log_q.gather(1, targets.unsqueeze(1));
  const Tensor one_hot = torch::zeros_like(log_q).scatter_(1, targets.unsqueeze(1), 1.0);
  write_gradient(log_q.exp() - one_hot, scale, factor, dacc);
  return -picked.sum(torch::kFloat64).item<double>();
}

double kl(const Tensor& acc, const Tensor& scale, const Tensor& teacher,
          const Tensor& teacher_scale, double factor, Tensor& dacc) {
  const Tensor log_q = torch::log_softmax(logits_of(acc, scale), 1);
  const Tensor log_p = torch::log_softmax(logits_of(teacher, teacher_scale), 1);
  const Tensor p = log_p.exp();
  write_gradient(log_q.exp() - p, scale, factor, dacc);
  return (p * (log_p - log_q)).sum(torch::kFloat64).item<double>();
}

}  // namespace qnpu::plain
