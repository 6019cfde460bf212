#include "quant/learn/cayley.h"

#include <algorithm>

namespace qnpu {

using torch::Tensor;

constexpr int kFixedPointSteps = 5;
constexpr int kNewtonSteps = 8;

void cayley_step(Tensor& r, Tensor& momentum, const Tensor& gradient, double rate, double decay) {
  const torch::NoGradGuard no_grad;
  const Tensor v = decay * momentum - gradient.t();
  const Tensor vr = torch::matmul(v, r);
  const Tensor h = vr - 0.5 * torch::matmul(r.t(), torch::matmul(r, vr));
  const Tensor w = h - h.t();
  const double norm = w.abs().sum(0).max().item<double>();
  const double a = std::min(rate, 1.0 / (norm + 1e-8));
  Tensor y = r.t() + a * v;
  for (int i = 0; i < kFixedPointSteps; ++i) {
    y = r.t() + 0.5 * a * torch::matmul(w, r.t() + y);
  }
  momentum = torch::matmul(w, r.t());
  r = y.t().contiguous();
}

double orthogonality_error(const Tensor& r) {
  const Tensor identity = torch::eye(r.size(0), r.options());
  return (torch::matmul(r.t(), r) - identity).abs().max().item<double>();
}

Tensor orthogonalised(const Tensor& r) {
  const torch::NoGradGuard no_grad;
  Tensor x = r.to(torch::kFloat64);
  const Tensor identity = torch::eye(x.size(0), x.options());
  for (int i = 0; i < kNewtonSteps; ++i) {
    x = 0.5 * torch::matmul(x, 3.0 * identity - torch::matmul(x.t(), x));
  }
  return x;
}

}  // namespace qnpu
