// GPTQ against brute force on small problems, and the properties that any size must have.
#include "quant/gptq.h"

#include <gtest/gtest.h>

#include <cmath>

#include "quant/weights.h"

namespace qnpu {
namespace {

// Correlated inputs, as activations are.
GptqProblem problem_of(int64_t n, int64_t k, uint64_t seed) {
  torch::manual_seed(seed);
  const torch::Tensor x = torch::matmul(torch::randn({4 * k, k}), torch::randn({k, k}));
  GptqProblem problem;
  problem.weight = torch::randn({n, k}) * 0.1;
  problem.hessian = torch::matmul(x.t(), x);
  problem.damping = 1e-6;
  return problem;
}

std::vector<float> start_scales(const GptqProblem& problem) {
  const int64_t n = problem.weight.size(0);
  std::vector<float> scale(static_cast<size_t>(n));
  const QuantSpec spec{
      .bitwidth = 4, .observer = Observer::kMse, .narrow_range = problem.range.qmin == -7};
  weight_scales({problem.weight.data_ptr<float>(), n, problem.weight.size(1)}, spec, false,
                scale.data());
  return scale;
}

// f of one row, in fp64.
double row_error(const GptqProblem& problem, int64_t row, const torch::Tensor& q, float scale) {
  const torch::Tensor rest =
      problem.weight[row].to(torch::kFloat64) - q.to(torch::kFloat64) * double{scale};
  return torch::dot(rest, torch::mv(problem.hessian.to(torch::kFloat64), rest)).item<double>();
}

torch::Tensor nearest(const GptqProblem& problem, int64_t row, float scale) {
  return torch::clamp(torch::round(problem.weight[row] / scale), -7, 7).to(torch::kInt8);
}

TEST(Gptq, IndependentInputsAreRoundedToNearest) {
  GptqProblem problem = problem_of(5, 40, 1);
  problem.hessian = torch::eye(40);
  problem.descents = 0;
  const std::vector<float> scale = start_scales(problem);
  const GptqResult result = gptq(problem, scale);
  for (int64_t row = 0; row < 5; ++row) {
    EXPECT_TRUE(torch::equal(result.integers[row], nearest(problem, row, scale[row])));
  }
  EXPECT_EQ(result.scale, scale);
}

// The best of all 15^4 rows of integers is not much better, rounding to nearest is never better.
TEST(Gptq, IsBetweenTheBestAndNearest) {
  GptqProblem problem = problem_of(20, 4, 2);
  double best_sum = 0.0, found_sum = 0.0, nearest_sum = 0.0;
  const std::vector<float> start = start_scales(problem);
  problem.snap = [](float scale) { return scale; };
  const GptqResult result = gptq(problem, start);
  const torch::Tensor digits = torch::arange(-7, 8, torch::kFloat64);
  const torch::Tensor all = torch::cartesian_prod({digits, digits, digits, digits});
  const torch::Tensor h = problem.hessian.to(torch::kFloat64);
  for (int64_t row = 0; row < 20; ++row) {
    const float scale = result.scale[row];
    const torch::Tensor rest = problem.weight[row].to(torch::kFloat64) - all * double{scale};
    best_sum += (torch::matmul(rest, h) * rest).sum(1).min().item<double>();
    found_sum += row_error(problem, row, result.integers[row], scale);
    nearest_sum += row_error(problem, row, nearest(problem, row, start[row]), start[row]);
  }
  EXPECT_GE(found_sum, best_sum * (1 - 1e-9));
  EXPECT_LE(found_sum, 2.0 * best_sum);
  EXPECT_LE(found_sum, 0.5 * nearest_sum);
}

// After the descents no single step of an integer lowers f.
TEST(Gptq, EndsWhereNoSingleStepHelps) {
  GptqProblem problem = problem_of(12, 150, 3);
  problem.descents = 20;
  problem.range = {-8, 7};
  const GptqResult result = gptq(problem, start_scales(problem));
  EXPECT_LE(result.error, result.gptq_error);
  const torch::Tensor h = problem.hessian.to(torch::kFloat64);
  for (int64_t row = 0; row < 12; ++row) {
    const double s = result.scale[row];
    const torch::Tensor q = result.integers[row].to(torch::kFloat64);
    EXPECT_LE(q.max().item<double>(), 7.0);
    EXPECT_GE(q.min().item<double>(), -8.0);
    const torch::Tensor gradient = torch::mv(h, problem.weight[row].to(torch::kFloat64) - q * s);
    // Change of f if q_k moves by d: s^2 H_kk - 2 d s gradient_k.
    for (double d : {-1.0, 1.0}) {
      const torch::Tensor change = s * s * h.diagonal() - 2 * d * s * gradient;
      const torch::Tensor allowed = ((q + d) <= 7.0).logical_and((q + d) >= -8.0);
      const double least = change.masked_select(allowed).min().item<double>();
      EXPECT_GE(least, -1e-3 * s * s * h.diagonal().max().item<double>());
    }
  }
}

TEST(Gptq, TheIntegerMinusEightLowersTheError) {
  GptqProblem problem = problem_of(40, 96, 5);
  const GptqResult narrow = gptq(problem, start_scales(problem));
  problem.range = {-8, 7};
  const GptqResult full = gptq(problem, start_scales(problem));
  EXPECT_EQ(narrow.integers.min().item<int>(), -7);
  EXPECT_EQ(full.integers.min().item<int>(), -8);
  EXPECT_LT(full.error, narrow.error);
}

TEST(Gptq, ScalesAreSnappedAndRowsOfZerosStay) {
  GptqProblem problem = problem_of(6, 64, 4);
  problem.weight[2].zero_();
  problem.snap = [](float scale) { return std::exp2(std::round(std::log2(scale) * 8) / 8); };
  std::vector<float> start = start_scales(problem);
  const GptqResult result = gptq(problem, start);
  for (int64_t row = 0; row < 6; ++row) {
    if (row == 2) continue;
    EXPECT_EQ(result.scale[row], problem.snap(result.scale[row])) << row;
  }
  EXPECT_EQ(result.scale[2], 0.0f);
  EXPECT_EQ(result.integers[2].abs().max().item<int>(), 0);
}

}  // namespace
}  // namespace qnpu
