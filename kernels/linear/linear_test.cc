#include "kernels/linear/linear.h"

#include <gtest/gtest.h>
#include <omp.h>
#include <rapidcheck/gtest.h>

#include "base/law.h"
#include "kernels/matmul/panels.h"
#include "kernels/testing.h"

namespace qnpu {
namespace {

struct Layer {
  LinearWeights view;
  std::vector<uint8_t> weight;
  std::vector<int32_t> row_sum, bias, mantissa, shift;
};

int32_t weight_at(const std::vector<uint8_t>& weight, int64_t index, int bits) {
  if (bits == 8) return static_cast<int8_t>(weight[index]);
  const int nibble = index % 2 == 0 ? weight[index / 2] & 15 : weight[index / 2] >> 4;
  return nibble >= 8 ? nibble - 16 : nibble;
}

// Multipliers from far too small to far too large for the outputs; `wide`: 16-bit activations.
void random_laws(Random& random, int n, bool wide, Layer& layer) {
  for (int i = 0; i < n; ++i) {
    const double m = std::ldexp(1.0 + random.between(0, 4095) / 4096.0,
                                static_cast<int>(random.between(random.one_in(9) ? -29 : -18, 4)));
    const Requant law = wide ? make_requant16(m) : make_requant8(m);
    layer.mantissa.push_back(law.mantissa);
    layer.shift.push_back(law.shift);
  }
}

Layer random_layer(Random& random, int n, int k, int bits, bool wide) {
  Layer layer;
  layer.weight = random.integers<uint8_t>(int64_t{n} * k * bits / 8, 0, 255);
  for (int64_t i = 0; i < n; ++i) {
    int32_t sum = 0;
    for (int64_t j = 0; j < k; ++j) sum += weight_at(layer.weight, i * k + j, bits);
    layer.row_sum.push_back(sum);
  }
  layer.bias = random.integers<int32_t>(n, -(1 << 22), 1 << 22);
  random_laws(random, n, wide, layer);
  layer.view = {n,
                k,
                bits,
                layer.weight.data(),
                layer.row_sum.data(),
                random.one_in(2) ? layer.bias.data() : nullptr,
                layer.mantissa.data(),
                layer.shift.data()};
  return layer;
}

template <typename T>
std::vector<T> run(const std::vector<T>& x, int m, const LinearWeights& w, Isa isa) {
  std::vector<T> y(int64_t{m} * w.n, 77);
  std::vector<uint8_t> scratch(linear_scratch_bytes(m, w.k));
  if constexpr (sizeof(T) == 1) {
    linear_s8(x.data(), m, w, y.data(), scratch.data(), isa);
  } else {
    linear_s16(x.data(), m, w, y.data(), scratch.data(), isa);
  }
  return y;
}

template <typename T>
void check_random_layer(uint64_t seed) {
  constexpr bool kWide = sizeof(T) == 2;
  Random random(seed);
  const int m =
      static_cast<int>(random.one_in(5) ? random.between(252, 262) : random.between(1, 30));
  const int n = static_cast<int>(random.between(1, 70));
  const int k = 2 * static_cast<int>(random.between(1, 140));
  const Layer layer = random_layer(random, n, k, random.one_in(2) ? 8 : 4, kWide);
  const auto x = random.integers<T>(int64_t{m} * k, kWide ? -32768 : -128, kWide ? 32767 : 127);
  const auto expected = run(x, m, layer.view, Isa::kReference);
  LinearWeights panels = layer.view;
  std::vector<uint8_t> laid_out(panels_bytes(n, k, layer.view.bits), 0xab);
  make_panels(layer.view.weight, n, k, layer.view.bits, laid_out.data(), Isa::kReference);
  panels.panels = laid_out.data();
  for (Isa isa : fast_isas()) {
    RC_ASSERT(run(x, m, layer.view, isa) == expected);
    RC_ASSERT(run(x, m, panels, isa) == expected);
  }
}

RC_GTEST_PROP(Linear, EightBitPathsEqualReference, (uint64_t seed)) {
  check_random_layer<int8_t>(seed);
}
RC_GTEST_PROP(Linear, SixteenBitPathsEqualReference, (uint64_t seed)) {
  check_random_layer<int16_t>(seed);
}

// M = 1/8 + ulp: acc 4 is half an output step. Ties go up at both signs, as the cut accumulator has
// half a (sixteenth of a) step added.
TEST(Linear, TiesAtBothSigns) {
  const uint8_t weight[] = {1, 0};
  const int32_t row_sum[] = {1}, bias[] = {0};
  const Requant law = make_requant8(0.125);
  const LinearWeights w{1, 2, 8, weight, row_sum, bias, &law.mantissa, &law.shift};
  const std::vector<int8_t> x = {3, 0, 4, 0, 12, 0, -3, 0, -4, 0, -5, 0, -12, 0, -13, 0};
  const std::vector<int8_t> expected = {0, 1, 2, 0, 0, -1, -1, -2};
  EXPECT_EQ(run(x, 8, w, Isa::kReference), expected);
  for (Isa isa : fast_isas()) EXPECT_EQ(run(x, 8, w, isa), expected);
}

// The largest sums that 32 bits must hold, in the layout of panels too.
TEST(Linear, ExtremesAtALargeK) {
  constexpr int kK = 16384;
  for (const int bits : {4, 8}) {
    std::vector<uint8_t> weight(3 * int64_t{kK} * bits / 8, bits == 8 ? 0x80 : 0x88);
    const std::vector<int32_t> sums(3, kK * (bits == 8 ? -128 : -8));
    const Requant law = make_requant8(1e-4);
    const std::vector<int32_t> mantissa(3, law.mantissa), shift(3, law.shift);
    LinearWeights w{3,           kK, bits, weight.data(), sums.data(), nullptr, mantissa.data(),
                    shift.data()};
    std::vector<uint8_t> laid_out(panels_bytes(3, kK, bits));
    make_panels(weight.data(), 3, kK, bits, laid_out.data(), Isa::kReference);
    w.panels = laid_out.data();
    for (const int8_t value : {int8_t{127}, int8_t{-128}}) {
      const std::vector<int8_t> x(2 * kK, value);
      const auto expected = run(x, 2, w, Isa::kReference);
      for (Isa isa : fast_isas()) EXPECT_EQ(run(x, 2, w, isa), expected) << isa_name(isa);
    }
  }
}

TEST(Linear, SameBitsForAnyNumberOfThreads) {
  Random random(11);
  const Layer layer = random_layer(random, 300, 192, 4, false);
  const auto x = random.integers<int8_t>(7 * 192, -128, 127);
  std::vector<uint8_t> laid_out(panels_bytes(300, 192, 4));
  make_panels(layer.view.weight, 300, 192, 4, laid_out.data(), best_isa());
  LinearWeights panels = layer.view;
  panels.panels = laid_out.data();
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const auto one = run(x, 7, layer.view, best_isa());
  for (int n : {1, 2, 3, 5}) {
    omp_set_num_threads(n);
    EXPECT_EQ(run(x, 7, layer.view, best_isa()), one) << n;
    EXPECT_EQ(run(x, 7, panels, best_isa()), one) << n;
  }
  omp_set_num_threads(threads);
}

}  // namespace
}  // namespace qnpu
