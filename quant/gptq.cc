#include "quant/gptq.h"

#include <algorithm>
#include <cmath>

#include "base/status.h"

namespace qnpu {
namespace {

constexpr int64_t kBlock = 128;  // columns whose errors are spread at once
constexpr int64_t kRows = 32;    // rows of one thread's tile: [kBlock][kRows] fits the first cache

// Upper Cholesky factor U of H^-1 = U' U: row i holds how column i's error spreads.
torch::Tensor error_factor(const torch::Tensor& hessian) {
  const torch::Tensor lower = torch::linalg_cholesky(hessian);
  const torch::Tensor inverse = torch::cholesky_inverse(lower);
  return torch::linalg_cholesky(inverse, /*upper=*/true).to(torch::kFloat32).contiguous();
}

struct Bounds {
  float low, high;
};

inline float nearest_integer(float v, Bounds bounds) {
  return std::nearbyint(std::min(std::max(v, bounds.low), bounds.high));
}

// Rounds columns [begin, begin + width) of the rows [first, first + count): `w` [N, K] in, integers
// out; `errors` [N, width] gets (w - s q) / U_ii of each column for the columns that follow.
struct BlockRounder {
  const float* u;  // [K, K]
  float* w;        // [N, K]
  const float* scale;
  int8_t* q;      // [N, K]
  float* errors;  // [N, width]
  int64_t k, begin, width;
  Bounds bounds;

  void rows(int64_t first, int64_t count) const {
    float tile[kBlock][kRows];
    for (int64_t c = 0; c < width; ++c) {
      for (int64_t r = 0; r < count; ++r) tile[c][r] = w[(first + r) * k + begin + c];
    }
    for (int64_t c = 0; c < width; ++c) {
      column(first, count, c, tile);
    }
  }

  void column(int64_t first, int64_t count, int64_t c, float (*tile)[kRows]) const {
    const float* spread = u + (begin + c) * k + begin;
    float error[kRows];
    for (int64_t r = 0; r < count; ++r) {
      const float s = scale[first + r];
      const float integer = s > 0.0f ? nearest_integer(tile[c][r] / s, bounds) : 0.0f;
      q[(first + r) * k + begin + c] = static_cast<int8_t>(integer);
      error[r] = (tile[c][r] - s * integer) / spread[c];
      errors[(first + r) * width + c] = error[r];
    }
    for (int64_t j = c + 1; j < width; ++j) {
      for (int64_t r = 0; r < count; ++r) tile[j][r] -= error[r] * spread[j];
    }
  }
};

// [N, K] integers by GPTQ, columns in the order they stand.
torch::Tensor round_columns(const torch::Tensor& weight, const torch::Tensor& factor,
                            const std::vector<float>& scale, Bounds bounds) {
  const int64_t n = weight.size(0), k = weight.size(1);
  torch::Tensor w = weight.clone();
  torch::Tensor q = torch::empty({n, k}, torch::kInt8);
  for (int64_t begin = 0; begin < k; begin += kBlock) {
    const int64_t width = std::min(kBlock, k - begin);
    torch::Tensor errors = torch::empty({n, width});
    const BlockRounder rounder{factor.data_ptr<float>(),
                               w.data_ptr<float>(),
                               scale.data(),
                               q.data_ptr<int8_t>(),
                               errors.data_ptr<float>(),
                               k,
                               begin,
                               width,
                               bounds};
#pragma omp parallel for schedule(dynamic)
    for (int64_t first = 0; first < n; first += kRows) {
      rounder.rows(first, std::min(kRows, n - first));
    }
    const int64_t rest = begin + width;
    if (rest == k) break;
    w.slice(1, rest).sub_(torch::matmul(errors, factor.slice(0, begin, rest).slice(1, rest)));
  }
  return q;
}

// One sweep over a row's columns: q_k moves to the integer that minimises f with all others fixed.
// `gradient` is H (w - s q), kept up to date; H's rows serve as its columns.
bool descend_row(const float* h, int64_t k, float s, Bounds bounds, int8_t* q, float* gradient) {
  bool moved = false;
  for (int64_t c = 0; c < k; ++c) {
    const float* column = h + c * k;
    const float wished = q[c] + gradient[c] / (s * column[c]);
    const float integer = nearest_integer(wished, bounds);
    const float change = integer - q[c];
    if (change == 0.0f) continue;
    q[c] = static_cast<int8_t>(integer);
    moved = true;
    const float step = s * change;
    for (int64_t j = 0; j < k; ++j) gradient[j] -= step * column[j];
  }
  return moved;
}

class Descent {
 public:
  Descent(const GptqProblem& problem, const torch::Tensor& hessian)
      : problem_(problem),
        w_(problem.weight),
        h_(hessian.to(torch::kFloat32).contiguous()),
        hw_(torch::matmul(w_, h_)),
        energy_((hw_ * w_).sum(torch::kFloat64).item<double>()) {}

  // sum of f, relative to that of q = 0.
  double error(const torch::Tensor& q, const std::vector<float>& scale) const {
    const torch::Tensor rest = w_ - dequantized(q, scale);
    const double f = (torch::matmul(rest, h_) * rest).sum(torch::kFloat64).item<double>();
    return energy_ > 0.0 ? f / energy_ : 0.0;
  }

  void refit_scales(const torch::Tensor& q, std::vector<float>& scale) const {
    const torch::Tensor integers = q.to(torch::kFloat32);
    const torch::Tensor up = (integers * hw_).sum(1, false, torch::kFloat64);
    const torch::Tensor down =
        (integers * torch::matmul(integers, h_)).sum(1, false, torch::kFloat64);
    for (size_t n = 0; n < scale.size(); ++n) {
      const double a = up.data_ptr<double>()[n], b = down.data_ptr<double>()[n];
      if (!(a > 0.0 && b > 0.0)) continue;
      const auto best = static_cast<float>(a / b);
      scale[n] = problem_.snap ? problem_.snap(best) : best;
    }
  }

  void move_integers(torch::Tensor& q, const std::vector<float>& scale, Bounds bounds) const {
    torch::Tensor gradient = torch::matmul(w_ - dequantized(q, scale), h_);
    const int64_t n = q.size(0), k = q.size(1);
    const float* h = h_.data_ptr<float>();
    auto* integers = q.data_ptr<int8_t>();
    float* gradients = gradient.data_ptr<float>();
#pragma omp parallel for schedule(dynamic, 4)
    for (int64_t r = 0; r < n; ++r) {
      if (scale[r] > 0.0f) {
        descend_row(h, k, scale[r], bounds, integers + r * k, gradients + r * k);
      }
    }
  }

 private:
  static torch::Tensor dequantized(const torch::Tensor& q, const std::vector<float>& scale) {
    return q.to(torch::kFloat32) * torch::tensor(scale).unsqueeze(1);
  }

  const GptqProblem& problem_;
  torch::Tensor w_, h_, hw_;
  double energy_;
};

}  // namespace

torch::Tensor damped(const torch::Tensor& hessian, double damping) {
  torch::Tensor h = hessian.to(torch::kFloat64, /*non_blocking=*/false, /*copy=*/true);
  torch::Tensor diagonal = h.diagonal();
  const double mean = diagonal.mean().item<double>();
  if (!std::isfinite(mean)) fail("the inputs of a linear hold NaN or infinity during calibration");
  diagonal.add_(std::max(damping * mean, 1e-12));
  return h;
}

GptqResult gptq(const GptqProblem& problem, std::vector<float> scale) {
  const torch::NoGradGuard no_grad;
  const Bounds bounds{static_cast<float>(problem.range.qmin),
                      static_cast<float>(problem.range.qmax)};
  const torch::Tensor hessian = damped(problem.hessian, problem.damping);
  torch::Tensor order = torch::arange(hessian.size(0), torch::kInt64);
  if (problem.order) order = torch::argsort(hessian.diagonal(), 0, /*descending=*/true);
  const torch::Tensor factor = error_factor(hessian.index_select(0, order).index_select(1, order));
  const torch::Tensor sorted =
      round_columns(problem.weight.index_select(1, order), factor, scale, bounds);
  torch::Tensor q = torch::empty_like(sorted);
  q.index_copy_(1, order, sorted);
  const Descent descent(problem, hessian);
  GptqResult result;
  result.gptq_error = descent.error(q, scale);
  for (int turn = 0; turn < problem.descents; ++turn) {
    descent.refit_scales(q, scale);
    descent.move_integers(q, scale, bounds);
  }
  result.error = descent.error(q, scale);
  result.integers = q;
  result.scale = std::move(scale);
  return result;
}

}  // namespace qnpu
