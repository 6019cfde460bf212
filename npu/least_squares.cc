#include "npu/least_squares.h"

#include <algorithm>

namespace qnpu {
namespace {

using Vector = std::vector<double>;
using Matrix = std::vector<Vector>;

double dot(const Vector& a, const Vector& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// Solves a x = b for a symmetric positive a, by elimination.
Vector solve(Matrix a, Vector b) {
  const size_t n = b.size();
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i + 1; j < n; ++j) {
      const double factor = a[j][i] / a[i][i];
      for (size_t k = i; k < n; ++k) a[j][k] -= factor * a[i][k];
      b[j] -= factor * b[i];
    }
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t k = i + 1; k < n; ++k) b[i] -= a[i][k] * b[k];
    b[i] /= a[i][i];
  }
  return b;
}

// Columns of the Jacobian, by differences.
Matrix derivatives(const Residuals& residuals, const Vector& x, const Vector& r) {
  constexpr double kDifference = 1e-4;
  Matrix columns;
  for (size_t i = 0; i < x.size(); ++i) {
    Vector moved = x;
    moved[i] += kDifference;
    columns.push_back(residuals(moved));
    for (size_t k = 0; k < r.size(); ++k) columns[i][k] = (columns[i][k] - r[k]) / kDifference;
  }
  return columns;
}

// (J^T J + damping * (1e-3 + its diagonal)) step = -J^T r
Vector damped_step(const Matrix& columns, const Vector& r, double damping) {
  const size_t n = columns.size();
  Matrix a(n, Vector(n));
  Vector b(n);
  for (size_t i = 0; i < n; ++i) {
    b[i] = -dot(columns[i], r);
    for (size_t j = 0; j < n; ++j) a[i][j] = dot(columns[i], columns[j]);
    a[i][i] += damping * (1e-3 + a[i][i]);
  }
  return solve(std::move(a), std::move(b));
}

}  // namespace

Vector least_squares(const Residuals& residuals, Vector x) {
  constexpr int kSteps = 200;
  constexpr double kFar = 12, kMostDamping = 1e8;
  Vector r = residuals(x);
  double damping = 1e-2;
  for (int i = 0; i < kSteps && damping < kMostDamping; ++i) {
    Vector trial = damped_step(derivatives(residuals, x, r), r, damping);
    for (size_t k = 0; k < x.size(); ++k) trial[k] = std::clamp(x[k] + trial[k], -kFar, kFar);
    Vector there = residuals(trial);
    if (dot(there, there) < dot(r, r)) {
      x = std::move(trial);
      r = std::move(there);
      damping /= 4;
    } else {
      damping *= 4;
    }
  }
  return x;
}

}  // namespace qnpu
