#include "quant/learn/row_kernels.h"

#include <cmath>

#include "base/vectorize.h"

namespace qnpu::lanes {
namespace {

// The integer of v = x / scale, halves to even.
inline float quantized(float v, Grid grid) {
  return clamp(round_half_even(clamp(v, grid.low - 1.0f, grid.high + 1.0f)), grid.low, grid.high);
}

inline bool inside(float v, Grid grid) { return v >= grid.low && v <= grid.high; }

// What a value becomes on a grid.
inline float rounded(float x, Grid grid) { return grid.scale * quantized(x / grid.scale, grid); }

}  // namespace

template <typename X, typename Y>
QNPU_VECTORIZE void fake_quant(const X* x, int64_t n, Grid grid, float step, Y* y) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    store(y[i], step * quantized(load(x[i]) / grid.scale, grid));
  }
}

template <typename A, typename X>
QNPU_VECTORIZE double fake_quant_backward(const A* g, const X* x, int64_t n, Grid grid, X* dx) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const float v = load(x[i]) / grid.scale;
    const float q = quantized(v, grid);
    const float gradient = load(g[i]);
    const bool in = inside(v, grid);
    store(dx[i], in ? gradient : 0.0f);
    sum += gradient * (in ? q - v : q);
  }
  return sum;
}

template <typename X>
QNPU_VECTORIZE void error_sums(const X* x, int64_t n, Grid grid, double& products,
                               double& squares) {
  float product = 0.0f;
  float square = 0.0f;
#pragma omp simd reduction(+ : product, square)
  for (int64_t i = 0; i < n; ++i) {
    const float v = load(x[i]) / grid.scale;
    const float q = quantized(v, grid);
    product += (q - v) * (inside(v, grid) ? q - v : q);
    square += v * v;
  }
  products = product;
  squares = square;
}

template <typename A>
QNPU_VECTORIZE void scale_columns(const float* acc, const float* factor, const float* bias,
                                  int64_t n, Grid grid, A* y) {
  if (grid.used()) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const float b = bias == nullptr ? 0.0f : bias[i];
      store(y[i], rounded(acc[i] * factor[i] + b, grid));
    }
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const float b = bias == nullptr ? 0.0f : bias[i];
      store(y[i], acc[i] * factor[i] + b);
    }
  }
}

template <typename A>
QNPU_VECTORIZE void scale_columns_backward(const A* dy, const float* acc, const float* factor,
                                           const float* bias, const float* scale, int64_t n,
                                           Grid grid, A* g) {
  if (grid.used()) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const float b = bias == nullptr ? 0.0f : bias[i];
      const bool in = inside((acc[i] * factor[i] + b) / grid.scale, grid);
      store(g[i], in ? load(dy[i]) * scale[i] : 0.0f);
    }
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) store(g[i], load(dy[i]) * scale[i]);
  }
}

template <typename A>
QNPU_VECTORIZE void accumulate(const A* add, int64_t n, float factor, float* total) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) total[i] += factor * load(add[i]);
}

template <typename X>
QNPU_VECTORIZE void rms_norm(const X* x, const float* gamma, int64_t n, float eps, X* y) {
  float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < n; ++i) squares += load(x[i]) * load(x[i]);
  const float r = 1.0f / std::sqrt(squares / static_cast<float>(n) + eps);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) store(y[i], load(x[i]) * r * gamma[i]);
}

template <typename X>
QNPU_VECTORIZE void rms_norm_backward(const X* dy, const X* x, const float* gamma, int64_t n,
                                      float eps, X* dx) {
  float squares = 0.0f;
  float product = 0.0f;
#pragma omp simd reduction(+ : squares, product)
  for (int64_t i = 0; i < n; ++i) {
    squares += load(x[i]) * load(x[i]);
    product += load(dy[i]) * gamma[i] * load(x[i]);
  }
  const float size = static_cast<float>(n);
  const float r = 1.0f / std::sqrt(squares / size + eps);
  const float along = product * r * r / size;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    store(dx[i], r * (load(dy[i]) * gamma[i] - load(x[i]) * along));
  }
}

template <typename A>
QNPU_VECTORIZE void rope(const A* x, const float* cos, const float* sin, float sign, int64_t n,
                         A* y) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float a = load(x[i]);
    const float b = load(x[n + i]);
    store(y[i], a * cos[i] - b * (sign * sin[i]));
    store(y[n + i], b * cos[i] + a * (sign * sin[i]));
  }
}

template <typename A>
QNPU_VECTORIZE void silu_mul(const A* gate, const A* up, int64_t n, Grid grid, float* y) {
  const bool round = grid.used();
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float g = load(gate[i]);
    const float silu = g * sigmoid(g);
    const float on_grid = rounded(silu, grid);  // before the choice: a branch would not vectorise
    y[i] = (round ? on_grid : silu) * load(up[i]);
  }
}

// silu'(g) = sigmoid + g * sigmoid * (1 - sigmoid)
template <typename A>
QNPU_VECTORIZE void silu_mul_backward(const float* dy, const A* gate, const A* up, int64_t n,
                                      Grid grid, A* dgate, A* dup) {
  const bool round = grid.used();
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float g = load(gate[i]);
    const float s = sigmoid(g);
    const float silu = g * s;
    const float slope = s + silu * (1.0f - s);
    const bool in = !round || inside(silu / grid.scale, grid);
    store(dgate[i], in ? dy[i] * load(up[i]) * slope : 0.0f);
    store(dup[i], dy[i] * (round ? rounded(silu, grid) : silu));
  }
}

template <typename A>
QNPU_VECTORIZE float dot(const A* a, const A* b, int64_t n) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += load(a[i]) * load(b[i]);
  return sum;
}

#define QNPU_INSTANTIATE(A)                                                                 \
  template void scale_columns(const float*, const float*, const float*, int64_t, Grid, A*); \
  template void scale_columns_backward(const A*, const float*, const float*, const float*,  \
                                       const float*, int64_t, Grid, A*);                    \
  template void accumulate(const A*, int64_t, float, float*);                               \
  template void rms_norm(const A*, const float*, int64_t, float, A*);                       \
  template void rms_norm_backward(const A*, const A*, const float*, int64_t, float, A*);    \
  template void rope(const A*, const float*, const float*, float, int64_t, A*);             \
  template void silu_mul(const A*, const A*, int64_t, Grid, float*);                        \
  template void silu_mul_backward(const float*, const A*, const A*, int64_t, Grid, A*, A*); \
  template float dot(const A*, const A*, int64_t);                                          \
  template void fake_quant(const A*, int64_t, Grid, float, float*);                         \
  template void fake_quant(const A*, int64_t, Grid, float, Bf16*);                          \
  template void error_sums(const A*, int64_t, Grid, double&, double&);                      \
  template double fake_quant_backward(const A*, const float*, int64_t, Grid, float*);       \
  template double fake_quant_backward(const A*, const Bf16*, int64_t, Grid, Bf16*);

QNPU_INSTANTIATE(float)
QNPU_INSTANTIATE(Bf16)

}  // namespace qnpu::lanes
