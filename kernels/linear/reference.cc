// y[i, n] = requantize(sum over k of x[i, k] * w[n, k], bias[n]), saturated.
#include <algorithm>

#include "base/law.h"
#include "kernels/linear/paths.h"
#include "kernels/parallel.h"

namespace qnpu {
namespace {

int64_t weight_at(const LinearWeights& w, int64_t n, int64_t k) {
  if (w.bits == 8) return static_cast<int8_t>(w.weight[n * w.k + k]);
  const uint8_t byte = w.weight[(n * w.k + k) / 2];  // K is even
  return ((k % 2 == 0 ? byte & 15 : byte >> 4) ^ 8) - 8;
}

template <typename T>
int64_t dot(const T* x, const LinearWeights& w, int64_t n) {
  int64_t sum = 0;
  for (int64_t k = 0; k < w.k; ++k) sum += x[k] * weight_at(w, n, k);
  return sum;
}

}  // namespace

void linear_s8_reference(const int8_t* x, int m, const LinearWeights& w, int8_t* y) {
  parallel_for(w.n, [&](int64_t n, int) {
    const int64_t bias = w.bias != nullptr ? w.bias[n] : 0;
    for (int64_t i = 0; i < m; ++i) {
      const int64_t acc = dot(x + i * w.k, w, n) + bias;
      const int64_t value = requantize8(acc, {w.mantissa[n], w.shift[n]});
      y[i * w.n + n] = static_cast<int8_t>(std::clamp<int64_t>(value, -128, 127));
    }
  });
}

void linear_s16_reference(const int16_t* x, int m, const LinearWeights& w, int16_t* y) {
  parallel_for(w.n, [&](int64_t n, int) {
    const int32_t bias_256 = w.bias != nullptr ? w.bias[n] : 0;
    for (int64_t i = 0; i < m; ++i) {
      const int64_t acc = dot(x + i * w.k, w, n);
      const int64_t value = requantize16(acc, bias_256, {w.mantissa[n], w.shift[n]});
      y[i * w.n + n] = static_cast<int16_t>(std::clamp<int64_t>(value, -32768, 32767));
    }
  });
}

}  // namespace qnpu
