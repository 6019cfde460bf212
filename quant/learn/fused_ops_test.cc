// Every fused pass against the same operation as tensor expressions.
#include "quant/learn/fused_ops.h"

#include <gtest/gtest.h>

#include "quant/test_models.h"

namespace qnpu {
namespace {

using torch::Tensor;

constexpr Grid kGrid{0.05f, -20.0f, 235.0f};  // asymmetric, clips some of the values below
constexpr Grid kNone{};

// One fp32 rounding and a few sums; of bf16 results one last bit, 2^-8.
double tolerance(torch::ScalarType type) { return type == torch::kFloat32 ? 2e-6 : 8e-3; }

void expect_near(const Tensor& fused, const Tensor& plain) {
  ASSERT_EQ(fused.scalar_type(), plain.scalar_type());
  ASSERT_EQ(fused.sizes(), plain.sizes());
  EXPECT_LT(relative_difference(fused, plain), tolerance(fused.scalar_type()));
}

class FusedOps : public testing::TestWithParam<torch::ScalarType> {
 protected:
  void SetUp() override { torch::manual_seed(1); }
  // 300 rows: several tasks for the threads, and tails of vectors.
  Tensor random(std::vector<int64_t> shape) { return torch::randn(shape).to(GetParam()); }
  Tensor random32(std::vector<int64_t> shape) { return torch::randn(shape); }
};

TEST_P(FusedOps, FakeQuant) {
  for (const auto x_type : {torch::kFloat32, torch::kBFloat16}) {
    const Tensor x = random32({300, 77}).to(x_type) * 4;
    // The same division in fp32: integers are equal, not only near.
    EXPECT_TRUE(torch::equal(fused::fake_quant(x, kGrid, 1.0f, GetParam()),
                             plain::fake_quant(x, kGrid, 1.0f, GetParam())));
    const Tensor g = random({300, 77});
    const auto fused = fused::fake_quant_backward(g, x, kGrid);
    const auto plain = plain::fake_quant_backward(g, x, kGrid);
    EXPECT_TRUE(torch::equal(fused.dx, plain.dx));
    EXPECT_GT((fused.dx == 0).sum().item<int>(), 0);
    EXPECT_NEAR(fused.dscale, plain.dscale, 1e-4 * std::abs(plain.dscale));
  }
}

TEST_P(FusedOps, ScaleColumns) {
  const Tensor acc = random32({300, 50}) * 9;
  const Tensor factor = random32({20}), bias = random32({20}), scale = random32({20}).abs();
  for (const Grid& grid : {kGrid, kNone}) {
    for (const Tensor& b : {bias, Tensor()}) {
      expect_near(fused::scale_columns(acc, 7, factor, b, grid, GetParam()),
                  plain::scale_columns(acc, 7, factor, b, grid, GetParam()));
      const Tensor dy = random({300, 20});
      Tensor fused = random({300, 50});
      Tensor plain = fused.clone();
      fused::scale_columns_backward(dy, acc, 7, factor, b, scale, grid, fused);
      plain::scale_columns_backward(dy, acc, 7, factor, b, scale, grid, plain);
      expect_near(fused, plain);
    }
  }
}

TEST_P(FusedOps, Accumulate) {
  const Tensor add = random({300, 50});
  Tensor fused = random32({300, 50});
  Tensor plain = fused.clone();
  fused::accumulate(add, 0.3, fused);
  plain::accumulate(add, 0.3, plain);
  expect_near(fused, plain);
}

TEST_P(FusedOps, RmsNorm) {
  const Tensor x = random({300, 3 * 35}), dy = random({300, 3 * 35}), gamma = random32({35});
  expect_near(fused::rms_norm(x, gamma, 3, 1e-2), plain::rms_norm(x, gamma, 3, 1e-2));
  expect_near(fused::rms_norm_backward(dy, x, gamma, 3, 1e-2),
              plain::rms_norm_backward(dy, x, gamma, 3, 1e-2));
}

TEST_P(FusedOps, Rope) {
  const Tensor x = random({300, 3 * 22}), cos = random32({100, 11}), sin = random32({100, 11});
  for (const float sign : {1.0f, -1.0f}) {
    expect_near(fused::rope(x, cos, sin, 3, sign), plain::rope(x, cos, sin, 3, sign));
  }
}

TEST_P(FusedOps, SiluMul) {
  const Tensor gate = random({300, 77}) * 5, up = random({300, 77}), dy = random32({300, 77});
  for (const Grid& grid : {kGrid, kNone}) {
    const Tensor fused = fused::silu_mul(gate, up, grid);
    const Tensor plain = plain::silu_mul(gate, up, grid);
    // exp differs in its last bits: a few values at a tie round to the other side.
    EXPECT_LT(((fused - plain).abs() > 1e-5).sum().item<int>(), 5);
    const auto a = fused::silu_mul_backward(dy, gate, up, grid);
    const auto b = plain::silu_mul_backward(dy, gate, up, grid);
    expect_near(a.dgate, b.dgate);
    EXPECT_LT(((a.dup - b.dup).abs() > 0.02).sum().item<int>(), 5);
  }
}

TEST_P(FusedOps, AttentionRows) {
  const Tensor scores = random32({120, 60}) * 6, dp = random32({120, 60});
  const Tensor sums = fused::log_sums(scores, 5, 3, 0.5);
  expect_near(sums, plain::log_sums(scores, 5, 3, 0.5));
  const Tensor p = fused::probabilities(scores, 5, 3, 0.5, sums, GetParam());
  expect_near(p, plain::probabilities(scores, 5, 3, 0.5, sums, GetParam()));
  EXPECT_EQ(p[0].narrow(0, 5, 55).count_nonzero().item<int>(), 0);
  const Tensor delta = random32({120});
  expect_near(fused::softmax_backward(dp, p, 5, 3, 0.5, delta),
              plain::softmax_backward(dp, p, 5, 3, 0.5, delta));
  const Tensor a = random({300, 64}), b = random({300, 64});
  EXPECT_LT(relative_difference(fused::row_dots(a, b), plain::row_dots(a, b)), 2e-6);
}

TEST_P(FusedOps, Losses) {
  const Tensor acc = random32({40, 999}) * 5, teacher = random32({40, 999}) * 5;
  const Tensor targets = torch::randint(999, {40});
  for (const Tensor& scale : {random32({999}), Tensor()}) {
    Tensor fused = random({40, 999}), plain = random({40, 999});
    const double a = fused::cross_entropy(acc.clone(), scale, targets, 0.1, fused);
    const double b = plain::cross_entropy(acc, scale, targets, 0.1, plain);
    EXPECT_NEAR(a, b, 1e-5 * b);
    expect_near(fused, plain);
    const double c = fused::kl(acc.clone(), scale, teacher.clone(), scale, 0.1, fused);
    const double d = plain::kl(acc, scale, teacher, scale, 0.1, plain);
    EXPECT_NEAR(c, d, 1e-5 * d);
    expect_near(fused, plain);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, FusedOps, testing::Values(torch::kFloat32, torch::kBFloat16),
                         [](const auto& info) {
                           return info.param == torch::kFloat32 ? "Fp32" : "Bf16";
                         });

}  // namespace
}  // namespace qnpu
