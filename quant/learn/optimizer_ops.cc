#include "quant/learn/optimizer_ops.h"

#include "quant/learn/ops.h"

namespace qnpu {
namespace {

using torch::Tensor;

// f(row, pointer to its integers) for all rows, by threads.
template <typename F>
void by_rows(const RoundedWeights& w, F f) {
  const int64_t n = w.x.size(0), k = w.x.size(1);
  const auto all = [&](auto* codes) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < n; ++r) f(r, codes + r * k);
  };
  if (w.codes.scalar_type() == torch::kBFloat16) {
    all(static_cast<lanes::Bf16*>(w.codes.data_ptr()));
  } else {
    all(w.codes.data_ptr<float>());
  }
}

bool is_fused(const RoundedWeights& w) { return ops::fusable(w.codes); }

// x between the rows' bounds, each `beyond` further out.
Tensor clamped(const RoundedWeights& w, const Tensor& x, double beyond = 0.0) {
  const Tensor low = w.qmin.unsqueeze(1) - beyond, high = w.qmax.unsqueeze(1) + beyond;
  return torch::minimum(torch::maximum(x, low), high);
}

Tensor is_inside(const RoundedWeights& w) {
  return (w.x >= w.qmin.unsqueeze(1)).logical_and(w.x <= w.qmax.unsqueeze(1));
}

lanes::Bounds bounds_of(const RoundedWeights& w, int64_t row) {
  return {w.qmin.data_ptr<float>()[row], w.qmax.data_ptr<float>()[row]};
}

}  // namespace

void round_weights(RoundedWeights& w) { w.codes.copy_(clamped(w, w.x.round())); }

void adam_weights(RoundedWeights& w, const AdamStep& step, Tensor& m, Tensor& v) {
  if (is_fused(w)) {
    const int64_t k = w.x.size(1);
    const auto row = [&](const Tensor& t, int64_t r) { return t.data_ptr<float>() + r * k; };
    by_rows(w, [&](int64_t r, auto* codes) {
      lanes::adam_row(row(w.x, r), row(w.g, r), k, step, bounds_of(w, r), row(m, r), row(v, r),
                      codes);
    });
    return;
  }
  m.mul_(step.beta_m).add_(w.g, 1.0 - step.beta_m);
  v.mul_(step.beta_v).addcmul_(w.g, w.g, 1.0 - step.beta_v);
  w.x.sub_(step.rate * (m / step.correct_m) / ((v / step.correct_v).sqrt() + step.epsilon));
  w.x.copy_(clamped(w, w.x, 0.5));
  w.g.zero_();
  round_weights(w);
}

Tensor scale_gradients(const RoundedWeights& w, bool fixed) {
  if (is_fused(w)) {
    Tensor sums = torch::empty({w.x.size(0)}, torch::kFloat64);
    const int64_t k = w.x.size(1);
    by_rows(w, [&](int64_t r, auto* codes) {
      sums.data_ptr<double>()[r] =
          lanes::scale_gradient(w.g.data_ptr<float>() + r * k, w.x.data_ptr<float>() + r * k, codes,
                                k, bounds_of(w, r), fixed);
    });
    return sums;
  }
  const Tensor codes = w.codes.to(w.x.scalar_type());
  const Tensor moved = torch::where(is_inside(w), codes - w.x, codes);
  return (w.g * (fixed ? moved : codes)).sum(1, false, torch::kFloat64);
}

void mask_clipped(RoundedWeights& w) { w.g.masked_fill_(is_inside(w).logical_not(), 0.0); }

}  // namespace qnpu
