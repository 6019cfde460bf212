#include "quant/learn/fused_ops.h"

#include <numeric>
#include <vector>

#include "base/status.h"
#include "quant/learn/row_kernels.h"

namespace qnpu::fused {
namespace {

constexpr int64_t kChunk = 1 << 14;         // numbers that one task takes
constexpr int64_t kWorthThreads = 1 << 15;  // numbers; below, threads cost more than they save

// f(begin, end) over ranges of rows, by several threads. The ranges depend on the sizes alone.
template <typename F>
void parallel_rows(int64_t rows, int64_t cols, F f) {
  const int64_t step = std::max<int64_t>(1, kChunk / std::max<int64_t>(1, cols));
#pragma omp parallel for schedule(static) if (rows * cols > kWorthThreads)
  for (int64_t begin = 0; begin < rows; begin += step) f(begin, std::min(begin + step, rows));
}

double sum(const std::vector<double>& parts) {
  return std::accumulate(parts.begin(), parts.end(), 0.0);
}

// f(pointer to float or to Bf16)
template <typename F>
void with_data(const Tensor& x, F f) {
  QNPU_ASSERT(x.is_contiguous());
  if (x.scalar_type() == torch::kBFloat16) {
    f(static_cast<lanes::Bf16*>(x.data_ptr()));
  } else {
    f(x.data_ptr<float>());
  }
}

template <typename A>
A* same(const Tensor& x, A*) {
  QNPU_ASSERT(x.is_contiguous());
  return static_cast<A*>(x.data_ptr());
}

const float* floats(const Tensor& x) { return x.defined() ? x.data_ptr<float>() : nullptr; }

}  // namespace

Tensor fake_quant(const Tensor& x, const Grid& grid, float step, torch::ScalarType type) {
  Tensor y = torch::empty(x.sizes(), x.options().dtype(type));
  with_data(x, [&](auto* from) {
    with_data(y, [&](auto* to) {
      parallel_rows(x.numel(), 1, [&](int64_t begin, int64_t end) {
        lanes::fake_quant(from + begin, end - begin, grid, step, to + begin);
      });
    });
  });
  return y;
}

FakeQuantGradient fake_quant_backward(const Tensor& g, const Tensor& x, const Grid& grid) {
  Tensor dx = torch::empty_like(x);
  std::vector<double> parts(static_cast<size_t>(x.numel() / kChunk + 1));
  with_data(g, [&](auto* gradient) {
    with_data(x, [&](auto* values) {
      auto* to = same(dx, values);
      parallel_rows(x.numel(), 1, [&](int64_t begin, int64_t end) {
        parts[begin / kChunk] = lanes::fake_quant_backward(gradient + begin, values + begin,
                                                           end - begin, grid, to + begin);
      });
    });
  });
  return {dx, sum(parts)};
}

double error_gradient(const Tensor& x, const Grid& grid) {
  std::vector<double> products(static_cast<size_t>(x.numel() / kChunk + 1));
  std::vector<double> squares(products.size());
  with_data(x, [&](auto* values) {
    parallel_rows(x.numel(), 1, [&](int64_t begin, int64_t end) {
      const size_t part = begin / kChunk;
      lanes::error_sums(values + begin, end - begin, grid, products[part], squares[part]);
    });
  });
  const double size = sum(squares);
  return size == 0.0 ? 0.0 : 2.0 / grid.scale * sum(products) / size;
}

Tensor scale_columns(const Tensor& acc, int64_t first, const Tensor& factor, const Tensor& bias,
                     const Grid& grid, torch::ScalarType type) {
  const int64_t n = factor.size(0);
  const int64_t stride = acc.size(1);
  Tensor y = torch::empty({acc.size(0), n}, acc.options().dtype(type));
  with_data(y, [&](auto* to) {
    parallel_rows(acc.size(0), n, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        lanes::scale_columns(floats(acc) + r * stride + first, floats(factor), floats(bias), n,
                             grid, to + r * n);
      }
    });
  });
  return y;
}

void scale_columns_backward(const Tensor& dy, const Tensor& acc, int64_t first,
                            const Tensor& factor, const Tensor& bias, const Tensor& scale,
                            const Grid& grid, Tensor& g) {
  const int64_t n = factor.size(0);
  const int64_t stride = g.size(1);
  with_data(dy, [&](auto* from) {
    auto* to = same(g, from);
    parallel_rows(dy.size(0), n, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        lanes::scale_columns_backward(from + r * n, floats(acc) + r * stride + first,
                                      floats(factor), floats(bias), floats(scale), n, grid,
                                      to + r * stride + first);
      }
    });
  });
}

void accumulate(const Tensor& add, double factor, Tensor& total) {
  with_data(add, [&](auto* from) {
    float* to = total.data_ptr<float>();
    parallel_rows(add.numel(), 1, [&](int64_t begin, int64_t end) {
      lanes::accumulate(from + begin, end - begin, static_cast<float>(factor), to + begin);
    });
  });
}

Tensor rms_norm(const Tensor& x, const Tensor& gamma, int heads, double eps) {
  Tensor y = torch::empty_like(x);
  const int64_t n = x.size(1) / heads;
  with_data(x, [&](auto* from) {
    auto* to = same(y, from);
    parallel_rows(x.size(0) * heads, n, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        lanes::rms_norm(from + r * n, floats(gamma), n, static_cast<float>(eps), to + r * n);
      }
    });
  });
  return y;
}

Tensor rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& gamma, int heads,
                         double eps) {
  Tensor dx = torch::empty_like(x);
  const int64_t n = x.size(1) / heads;
  with_data(x, [&](auto* from) {
    auto* to = same(dx, from);
    auto* gradient = same(dy, from);
    parallel_rows(x.size(0) * heads, n, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        lanes::rms_norm_backward(gradient + r * n, from + r * n, floats(gamma), n,
                                 static_cast<float>(eps), to + r * n);
      }
    });
  });
  return dx;
}

Tensor rope(const Tensor& x, const Tensor& cos, const Tensor& sin, int heads, float sign) {
  Tensor y = torch::empty_like(x);
  const int64_t half = cos.size(1);
  const int64_t cols = x.size(1);
  with_data(x, [&](auto* from) {
    auto* to = same(y, from);
    parallel_rows(x.size(0), cols, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t t = r % cos.size(0);
        for (int64_t h = 0; h < heads; ++h) {
          const int64_t at = r * cols + h * 2 * half;
          lanes::rope(from + at, floats(cos) + t * half, floats(sin) + t * half, sign, half,
                      to + at);
        }
      }
    });
  });
  return y;
}

Tensor silu_mul(const Tensor& gate, const Tensor& up, const Grid& grid) {
  Tensor y = torch::empty(gate.sizes(), gate.options().dtype(torch::kFloat32));
  float* to = y.data_ptr<float>();
  with_data(gate, [&](auto* gates) {
    auto* ups = same(up, gates);
    parallel_rows(y.numel(), 1, [&](int64_t begin, int64_t end) {
      lanes::silu_mul(gates + begin, ups + begin, end - begin, grid, to + begin);
    });
  });
  return y;
}

SiluMulGradient silu_mul_backward(const Tensor& dy, const Tensor& gate, const Tensor& up,
                                  const Grid& grid) {
  SiluMulGradient gradient{torch::empty_like(gate), torch::empty_like(up)};
  const float* from = dy.data_ptr<float>();
  with_data(gate, [&](auto* gates) {
    auto* ups = same(up, gates);
    auto* dgates = same(gradient.dgate, gates);
    auto* dups = same(gradient.dup, gates);
    parallel_rows(dy.numel(), 1, [&](int64_t begin, int64_t end) {
      lanes::silu_mul_backward(from + begin, gates + begin, ups + begin, end - begin, grid,
                               dgates + begin, dups + begin);
    });
  });
  return gradient;
}

Tensor log_sums(const Tensor& scores, int64_t visible, int64_t group, double scale) {
  Tensor sums = torch::empty({scores.size(0)}, scores.options());
  const int64_t n = scores.size(1);
  float* to = sums.data_ptr<float>();
  parallel_rows(scores.size(0), n, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      to[r] = lanes::log_sum_of_exponentials(floats(scores) + r * n, visible + r / group,
                                             static_cast<float>(scale));
    }
  });
  return sums;
}

Tensor probabilities(const Tensor& scores, int64_t visible, int64_t group, double scale,
                     const Tensor& log_sums, torch::ScalarType type) {
  Tensor p = torch::empty(scores.sizes(), scores.options().dtype(type));
  const int64_t n = scores.size(1);
  with_data(p, [&](auto* to) {
    parallel_rows(scores.size(0), n, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        lanes::probabilities(floats(scores) + r * n, visible + r / group, n,
                             static_cast<float>(scale), floats(log_sums)[r], to + r * n);
      }
    });
  });
  return p;
}

Tensor softmax_backward(const Tensor& dp, const Tensor& p, int64_t visible, int64_t group,
                        double scale, const Tensor& delta) {
  Tensor ds = torch::empty_like(p);
  const int64_t n = p.size(1);
  with_data(p, [&](auto* from) {
    auto* to = same(ds, from);
    parallel_rows(p.size(0), n, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        lanes::softmax_backward(floats(dp) + r * n, from + r * n, visible + r / group, n,
                                static_cast<float>(scale), floats(delta)[r], to + r * n);
      }
    });
  });
  return ds;
}

Tensor row_dots(const Tensor& a, const Tensor& b) {
  Tensor dots = torch::empty({a.size(0)}, a.options().dtype(torch::kFloat32));
  const int64_t n = a.size(1);
  float* to = dots.data_ptr<float>();
  with_data(a, [&](auto* left) {
    auto* right = same(b, left);
    parallel_rows(a.size(0), n, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) to[r] = lanes::dot(left + r * n, right + r * n, n);
    });
  });
  return dots;
}

double cross_entropy(const Tensor& acc, const Tensor& scale, const Tensor& targets, double factor,
                     Tensor& dacc) {
  const int64_t n = acc.size(1);
  std::vector<double> losses(static_cast<size_t>(acc.size(0)));
  float* z = acc.data_ptr<float>();
  const int64_t* target = targets.data_ptr<int64_t>();
  with_data(dacc, [&](auto* to) {
    parallel_rows(acc.size(0), n, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        losses[r] = lanes::cross_entropy_row(z + r * n, floats(scale), n, target[r],
                                             static_cast<float>(factor), to + r * n);
      }
    });
  });
  return sum(losses);
}

double kl(const Tensor& acc, const Tensor& scale, const Tensor& teacher,
          const Tensor& teacher_scale, double factor, Tensor& dacc) {
  const int64_t n = acc.size(1);
  std::vector<double> losses(static_cast<size_t>(acc.size(0)));
  float* z = acc.data_ptr<float>();
  float* t = teacher.data_ptr<float>();
  with_data(dacc, [&](auto* to) {
    parallel_rows(acc.size(0), n, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        losses[r] = lanes::kl_row(z + r * n, floats(scale), t + r * n, floats(teacher_scale), n,
                                  static_cast<float>(factor), to + r * n);
      }
    });
  });
  return sum(losses);
}

}  // namespace qnpu::fused
