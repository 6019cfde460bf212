#include "quant/hadamard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"

namespace qnpu {
namespace {

double distance_to_identity(const torch::Tensor& m) {
  const torch::Tensor gram = torch::matmul(m, m.t());
  return (gram - torch::eye(m.size(0), torch::kFloat64)).abs().max().item<double>();
}

// Entries are exactly +-1, and all rows are orthogonal: H H' x = n x for random x is exact in
// float64, for every row at once.
void expect_hadamard(int n) {
  const torch::Tensor signs = hadamard_signs(n);
  ASSERT_TRUE(signs.defined()) << n;
  ASSERT_EQ(signs.sizes(), (std::vector<int64_t>{n, n}));
  ASSERT_TRUE(signs.abs().eq(1).all().item<bool>()) << n;
  const torch::Tensor h = signs.to(torch::kFloat64);
  if (n <= 1024) {
    ASSERT_TRUE(torch::matmul(h, h.t()).eq(n * torch::eye(n, torch::kFloat64)).all().item<bool>());
  }
  const torch::Tensor probes = torch::randint(-1000, 1001, {n, 4}, torch::kFloat64);
  ASSERT_TRUE(torch::matmul(h, torch::matmul(h.t(), probes)).eq(n * probes).all().item<bool>())
      << n;
}

TEST(Hadamard, EverySizeOfARealModel) {
  for (int head_dim : {64, 80, 96, 128, 256}) expect_hadamard(head_dim);
  for (int hidden : {576, 896, 960, 1536, 2048, 2560, 3072, 3584, 4096}) expect_hadamard(hidden);
}

TEST(Hadamard, SmallSizes) {
  for (int n :
       {1,  2,  4,  8,  12, 16, 20, 24,  28,  32,  36,  40,  44,  48,  52,  56,  60,  64,  68,
        72, 76, 80, 84, 88, 92, 96, 100, 104, 108, 112, 116, 120, 140, 156, 172, 312, 344, 688}) {
    expect_hadamard(n);
  }
}

TEST(Hadamard, LargeSizesAreOrthogonal) {
  for (int n : {5120, 8192}) {
    const torch::Tensor h = hadamard_signs(n);
    ASSERT_TRUE(h.defined());
    const torch::Tensor probe = torch::randint(-1000, 1001, {n, 1}, torch::kFloat32);
    const torch::Tensor once = torch::matmul(h.to(torch::kFloat32).t(), probe);
    const torch::Tensor twice = torch::matmul(h.to(torch::kFloat32), once) / n;
    EXPECT_LE((twice - probe).abs().max().item<double>(), 1e-2);
  }
}

TEST(Hadamard, IsNormalised) { EXPECT_LE(distance_to_identity(hadamard(576)), 1e-12); }

TEST(Hadamard, UnknownSizeIsAnErrorThatNamesIt) {
  for (int n : {0, -4, 3, 6, 98, 188, 4 * 47}) {
    EXPECT_FALSE(hadamard_signs(n).defined()) << n;
    try {
      hadamard(n);
      FAIL() << n;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(std::to_string(n)));
    }
  }
}

TEST(RandomRotations, AreOrthogonalAndFollowTheSeed) {
  for (auto make : {random_hadamard, random_orthogonal}) {
    for (int n : {64, 96, 576}) {
      const torch::Tensor r = make(n, 7);
      EXPECT_LE(distance_to_identity(r), 1e-12);
      EXPECT_TRUE(torch::equal(r, make(n, 7)));
      EXPECT_FALSE(torch::equal(r, make(n, 8)));
    }
  }
}

// A uniformly distributed rotation has a trace of mean 0 and variance 1; without the signs of R's
// diagonal it would have neither.
TEST(RandomRotations, OrthogonalOnesAreUniform) {
  double sum = 0.0, squares = 0.0;
  constexpr int kRuns = 400;
  for (int seed = 0; seed < kRuns; ++seed) {
    const double trace = random_orthogonal(16, seed).trace().item<double>();
    sum += trace;
    squares += trace * trace;
  }
  EXPECT_NEAR(sum / kRuns, 0.0, 0.2);
  EXPECT_NEAR(squares / kRuns, 1.0, 0.3);
}

}  // namespace
}  // namespace qnpu
