#include "quant/learn/cayley.h"

#include <gtest/gtest.h>

#include "quant/hadamard.h"
#include "quant/test_models.h"

namespace qnpu {
namespace {

using torch::Tensor;

// The exact Cayley transform of the same step: (1 - a W / 2)^-1 (1 + a W / 2) R'.
Tensor exact_step(const Tensor& r, const Tensor& gradient, double rate) {
  const Tensor v = -gradient.t();
  const Tensor h = v.matmul(r) - 0.5 * r.t().matmul(r.matmul(v.matmul(r)));
  const Tensor w = h - h.t();
  const double a = std::min(rate, 1.0 / w.abs().sum(0).max().item<double>());
  const Tensor identity = torch::eye(r.size(0), torch::kFloat64);
  return torch::linalg_solve(identity - 0.5 * a * w, (identity + 0.5 * a * w).matmul(r.t())).t();
}

TEST(Cayley, IsTheCayleyTransform) {
  torch::manual_seed(5);
  Tensor r = random_orthogonal(12, 1);
  const Tensor gradient = torch::randn({12, 12}, torch::kFloat64);
  const Tensor wanted = exact_step(r, gradient, 0.01);
  Tensor momentum = torch::zeros_like(r);
  cayley_step(r, momentum, gradient, 0.01, 0.0);
  EXPECT_LT(max_difference(r, wanted), 1e-6);  // five turns of a fixed point
  EXPECT_LT(orthogonality_error(r), 1e-6);
}

// Descent on the distance to a rotation comes to it, and never leaves the orthogonal matrices.
TEST(Cayley, FindsARotation) {
  for (const double decay : {0.0, 0.5}) {
    const Tensor target = random_orthogonal(8, 2);
    Tensor r = random_orthogonal(8, 3);
    if ((torch::linalg_det(r) * torch::linalg_det(target)).item<double>() < 0) r[0].neg_();
    Tensor momentum = torch::zeros_like(r);
    for (int i = 0; i < 400; ++i) {
      cayley_step(r, momentum, r - target, 0.2, decay);
      ASSERT_LT(orthogonality_error(r), 0.01);
      r = orthogonalised(r);
    }
    EXPECT_LT(max_difference(r, target), 1e-3) << decay;
  }
}

TEST(Cayley, LargeRatesAreCapped) {
  Tensor r = random_orthogonal(16, 4);
  Tensor momentum = torch::zeros_like(r);
  cayley_step(r, momentum, torch::randn({16, 16}, torch::kFloat64) * 1e6, 1e3, 0.0);
  EXPECT_LT(orthogonality_error(r), 0.05);
}

TEST(Cayley, OrthogonalisedIsOrthogonalAndNear) {
  const Tensor r = random_orthogonal(20, 5);
  const Tensor disturbed = r + 1e-3 * torch::randn({20, 20}, torch::kFloat64);
  const Tensor repaired = orthogonalised(disturbed);
  EXPECT_LT(orthogonality_error(repaired), 1e-13);
  EXPECT_LT(max_difference(repaired, r), 5e-3);
}

}  // namespace
}  // namespace qnpu
