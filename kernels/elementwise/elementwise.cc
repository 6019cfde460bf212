// Each operation is one loop over its law, so this file is both the specification and the fast
// path: the compiler vectorises the loops (base/vectorize.h), threads take ranges of them. Two that
// it does badly have paths of their own (paths.h).
#include "kernels/elementwise/elementwise.h"

#include <algorithm>
#include <cstring>

#include "base/vectorize.h"
#include "kernels/elementwise/paths.h"
#include "kernels/parallel.h"

namespace qnpu {
namespace {

constexpr int64_t kGrain = 16384;  // numbers that a thread takes at once

int8_t saturate8(int64_t v) { return static_cast<int8_t>(std::clamp<int64_t>(v, -128, 127)); }
int16_t saturate16(int64_t v) {
  return static_cast<int16_t>(std::clamp<int64_t>(v, -32768, 32767));
}

QNPU_VECTORIZE void widen_loop(const int8_t* x, int64_t n, int16_t* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = widen(x[i]);
}

QNPU_VECTORIZE void narrow_loop(const int16_t* x, int64_t n, int8_t* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = narrow(x[i]);
}

QNPU_VECTORIZE void narrow4_loop(const int16_t* x, int64_t n, int8_t* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = narrow4(x[i]);
}

// In 32 bits: multipliers have 15 (make_add16), so sums are below 2^31 - 2^15.
QNPU_VECTORIZE void add_loop(const int16_t* a, const int16_t* b, int64_t n, AddLaw law,
                             int16_t* y) {
  const int32_t half = 1 << (law.shift - 1);
  for (int64_t i = 0; i < n; ++i) {
    const int32_t sum = a[i] * law.ma + b[i] * law.mb + half;
    y[i] = static_cast<int16_t>(std::clamp(sum >> law.shift, -32768, 32767));
  }
}

QNPU_VECTORIZE void mul8_loop(const int8_t* a, int32_t zero, const int8_t* b, int64_t n, MulLaw law,
                              int8_t* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = saturate8(mul(a[i] - zero, b[i], law));
}

// The same in 32 bits: products are below 2^30 (make_mul8), half a step below 2^30 too.
QNPU_VECTORIZE void mul8_narrow_loop(const int8_t* a, int32_t zero, const int8_t* b, int64_t n,
                                     MulLaw law, int8_t* y) {
  const int32_t half = 1 << (law.shift - 1);
  for (int64_t i = 0; i < n; ++i) {
    const int32_t product = (a[i] - zero) * b[i] * law.multiplier;
    y[i] = static_cast<int8_t>(std::clamp((product + half) >> law.shift, -128, 127));
  }
}

QNPU_VECTORIZE void mul16_loop(const int16_t* a, int32_t zero, const int16_t* b, int64_t n,
                               MulLaw law, int16_t* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = saturate16(mul(a[i] - zero, b[i], law));
}

QNPU_VECTORIZE void rope_loop(const int16_t* x, const int16_t* table, int half, int rows,
                              MulLaw law, int16_t* y) {
  for (int row = 0; row < rows; ++row, x += half, y += half) {
    for (int i = 0; i < half; ++i) y[i] = saturate16(mul(x[i], table[i], law));
  }
}

QNPU_VECTORIZE void negate_loop(const int16_t* x, int n, int16_t* y) {
  for (int i = 0; i < n; ++i) y[i] = saturate16(-int32_t{x[i]});
}

QNPU_VECTORIZE int64_t sum_of_squares(const int16_t* x, int n) {
  int64_t sum = 0;
  for (int i = 0; i < n; ++i) sum += int32_t{x[i]} * x[i];
  return sum;
}

QNPU_VECTORIZE void rmsnorm_loop(const int16_t* x, const int16_t* gamma, int n, RmsNormFactor f,
                                 int16_t* y) {
  for (int i = 0; i < n; ++i) y[i] = saturate16(rmsnorm(x[i], gamma[i], f));
}

}  // namespace

void widen_s8_s16(const int8_t* x, int64_t count, int16_t* y) {
  parallel_ranges(count, kGrain,
                  [=](int64_t i, int64_t end) { widen_loop(x + i, end - i, y + i); });
}

void narrow_s16_s8(const int16_t* x, int64_t count, int8_t* y) {
  parallel_ranges(count, kGrain,
                  [=](int64_t i, int64_t end) { narrow_loop(x + i, end - i, y + i); });
}

void narrow_s16_s4(const int16_t* x, int64_t count, int8_t* y) {
  parallel_ranges(count, kGrain,
                  [=](int64_t i, int64_t end) { narrow4_loop(x + i, end - i, y + i); });
}

void add_s16(const int16_t* a, const int16_t* b, int64_t count, AddLaw law, int16_t* y) {
  parallel_ranges(count, kGrain,
                  [=](int64_t i, int64_t end) { add_loop(a + i, b + i, end - i, law, y + i); });
}

void mul_s8(const int8_t* a, int32_t a_zero_point, const int8_t* b, int64_t count, MulLaw law,
            int8_t* y) {
  const auto loop = law.shift <= 30 ? mul8_narrow_loop : mul8_loop;
  parallel_ranges(count, kGrain, [=](int64_t i, int64_t end) {
    loop(a + i, a_zero_point, b + i, end - i, law, y + i);
  });
}

void mul_s16(const int16_t* a, int32_t a_zero_point, const int16_t* b, int64_t count, MulLaw law,
             int16_t* y) {
  parallel_ranges(count, kGrain, [=](int64_t i, int64_t end) {
    mul16_loop(a + i, a_zero_point, b + i, end - i, law, y + i);
  });
}

void table_s8(const int8_t* x, const int16_t* table, int64_t count, int8_t* y, Isa isa) {
  parallel_ranges(count, kGrain, [=](int64_t i, int64_t end) {
    if (isa >= Isa::kAvx512Vnni) return table_s8_avx512vnni(x + i, table, end - i, y + i);
    for (; i < end; ++i) y[i] = static_cast<int8_t>(table[x[i] + 128]);
  });
}

void table_s16(const int16_t* x, const int16_t* table, int64_t count, int16_t* y) {
  parallel_ranges(count, kGrain, [=](int64_t i, int64_t end) {
    for (; i < end; ++i) y[i] = table[x[i] + 32768];
  });
}

void rotate_half_s16(const int16_t* x, int tokens, int heads, int head_dim, int16_t* y) {
  const int half = head_dim / 2;
  parallel_ranges(int64_t{tokens} * heads, kGrain / head_dim, [=](int64_t row, int64_t end) {
    for (; row < end; ++row) {
      const int16_t* from = x + row * head_dim;
      negate_loop(from + half, half, y + row * head_dim);
      std::memcpy(y + row * head_dim + half, from, half * sizeof(int16_t));
    }
  });
}

void rope_mul_s16(const int16_t* x, const int16_t* table, int tokens, int position, int heads,
                  int head_dim, MulLaw law, int16_t* y, Isa isa) {
  const int half = head_dim / 2, rows = 2 * heads;
  const int64_t width = int64_t{heads} * head_dim;
  const auto multiply =
      isa >= Isa::kAvx512Vnni && law.shift >= 32 ? rope_rows_avx512vnni : rope_loop;
  parallel_ranges(tokens, std::max<int64_t>(1, kGrain / width), [=](int64_t t, int64_t end) {
    for (; t < end; ++t) {
      multiply(x + t * width, table + (position + t) * half, half, rows, law, y + t * width);
    }
  });
}

void embedding_s16(const int32_t* tokens, int count, const int16_t* table, int cols, int16_t* y) {
  for (int64_t t = 0; t < count; ++t) {
    std::memcpy(y + t * cols, table + int64_t{tokens[t]} * cols, cols * sizeof(int16_t));
  }
}

void rmsnorm_s16(const int16_t* x, const int16_t* gamma, int rows, int cols, const RmsNormLaw& law,
                 int16_t* y) {
  parallel_ranges(rows, kGrain / cols, [=](int64_t row, int64_t end) {
    for (; row < end; ++row) {
      const int16_t* from = x + row * cols;
      const RmsNormFactor factor = rmsnorm_factor(sum_of_squares(from, cols), law);
      rmsnorm_loop(from, gamma, cols, factor, y + row * cols);
    }
  });
}

}  // namespace qnpu
