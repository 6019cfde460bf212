#include "quant/matmul.h"

#include <gtest/gtest.h>

namespace qnpu {
namespace {

// Codes are exact in bf16, and sums of this size in fp32: the product equals that of integers.
TEST(MatmulBf16, IsExactOnIntegerCodes) {
  torch::manual_seed(1);
  const torch::Tensor x = torch::randint(-127, 128, {37, 70}, torch::kInt64);
  const torch::Tensor w = torch::randint(-7, 8, {70, 51}, torch::kInt64);
  const torch::Tensor y = matmul_bf16(x.to(torch::kFloat32), w.to(torch::kFloat32));
  EXPECT_TRUE(torch::equal(y.to(torch::kInt64), torch::matmul(x, w)));
}

TEST(MatmulBf16, TakesTransposedAndStridedOperands) {
  torch::manual_seed(2);
  const torch::Tensor x = torch::randint(-9, 10, {64, 96}, torch::kInt64);
  const torch::Tensor f = x.to(torch::kFloat32);
  EXPECT_TRUE(torch::equal(matmul_bf16(f.t(), f).to(torch::kInt64), torch::matmul(x.t(), x)));
  const torch::Tensor half = f.slice(1, 0, 96, 2);  // neither rows nor columns are dense
  const torch::Tensor expected = torch::matmul(x.slice(1, 0, 96, 2), x.slice(1, 0, 96, 2).t());
  EXPECT_TRUE(torch::equal(matmul_bf16(half, half.t()).to(torch::kInt64), expected));
}

}  // namespace
}  // namespace qnpu
