// Softmax rows of attention, and the losses over the vocabulary.
#include <cmath>

#include "base/vectorize.h"
#include "quant/learn/row_kernels.h"

namespace qnpu::lanes {
namespace {

inline float log_sum(const float* s, int64_t n, float scale) {
  float most = scale * s[0];
#pragma omp simd reduction(max : most)
  for (int64_t i = 0; i < n; ++i) most = std::max(most, scale * s[i]);
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += exp(scale * s[i] - most);
  return most + std::log(sum);
}

inline void apply_scale(float* z, const float* scale, int64_t n) {
  if (scale == nullptr) return;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) z[i] *= scale[i];
}

}  // namespace

QNPU_VECTORIZE float log_sum_of_exponentials(const float* s, int64_t visible, float scale) {
  return log_sum(s, visible, scale);
}

template <typename A>
QNPU_VECTORIZE void probabilities(const float* s, int64_t visible, int64_t n, float scale,
                                  float log_sum, A* p) {
#pragma omp simd
  for (int64_t i = 0; i < visible; ++i) store(p[i], exp(scale * s[i] - log_sum));
  for (int64_t i = visible; i < n; ++i) store(p[i], 0.0f);
}

template <typename A>
QNPU_VECTORIZE void softmax_backward(const float* dp, const A* p, int64_t visible, int64_t n,
                                     float scale, float delta, A* ds) {
#pragma omp simd
  for (int64_t i = 0; i < visible; ++i) store(ds[i], scale * load(p[i]) * (dp[i] - delta));
  for (int64_t i = visible; i < n; ++i) store(ds[i], 0.0f);
}

template <typename A>
QNPU_VECTORIZE double cross_entropy_row(float* acc, const float* scale, int64_t n, int64_t target,
                                        float factor, A* dacc) {
  apply_scale(acc, scale, n);
  const float sum = log_sum(acc, n, 1.0f);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float s = scale == nullptr ? factor : factor * scale[i];
    store(dacc[i], s * exp(acc[i] - sum));
  }
  const float s = scale == nullptr ? factor : factor * scale[target];
  store(dacc[target], s * (exp(acc[target] - sum) - 1.0f));
  return static_cast<double>(sum) - acc[target];
}

template <typename A>
QNPU_VECTORIZE double kl_row(float* acc, const float* scale, float* teacher,
                             const float* teacher_scale, int64_t n, float factor, A* dacc) {
  apply_scale(acc, scale, n);
  apply_scale(teacher, teacher_scale, n);
  const float sum = log_sum(acc, n, 1.0f);
  const float teacher_sum = log_sum(teacher, n, 1.0f);
  float loss = 0.0f;
#pragma omp simd reduction(+ : loss)
  for (int64_t i = 0; i < n; ++i) {
    const float log_p = teacher[i] - teacher_sum;
    const float log_q = acc[i] - sum;
    const float p = exp(log_p);
    loss += p * (log_p - log_q);
    const float s = scale == nullptr ? factor : factor * scale[i];
    store(dacc[i], s * (exp(log_q) - p));
  }
  return loss;
}

#define QNPU_INSTANTIATE(A)                                                                   \
  template void probabilities(const float*, int64_t, int64_t, float, float, A*);              \
  template void softmax_backward(const float*, const A*, int64_t, int64_t, float, float, A*); \
  template double cross_entropy_row(float*, const float*, int64_t, int64_t, float, A*);       \
  template double kl_row(float*, const float*, float*, const float*, int64_t, float, A*);

QNPU_INSTANTIATE(float)
QNPU_INSTANTIATE(Bf16)

}  // namespace qnpu::lanes
