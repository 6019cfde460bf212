#include "npu/least_squares.h"

#include <gtest/gtest.h>

#include <cmath>

namespace qnpu {
namespace {

using Vector = std::vector<double>;

// A line through points on it, and through points beside it: slope and offset by the formula.
TEST(LeastSquares, AStraightLine) {
  const Vector at = {0, 1, 2, 3}, y = {1, 3, 2, 6};
  const auto line = [&](const Vector& x) {
    Vector r;
    for (size_t i = 0; i < at.size(); ++i) r.push_back(x[0] * at[i] + x[1] - y[i]);
    return r;
  };
  const Vector found = least_squares(line, {0, 0});
  EXPECT_NEAR(found[0], 1.4, 1e-6);  // covariance 7 / 4 over variance 5 / 4
  EXPECT_NEAR(found[1], 0.9, 1e-6);  // 3 - 1.4 * 1.5
}

TEST(LeastSquares, AlongABentValley) {  // Rosenbrock's
  const auto valley = [](const Vector& x) { return Vector{1 - x[0], 10 * (x[1] - x[0] * x[0])}; };
  const Vector found = least_squares(valley, {-1.2, 1});
  EXPECT_NEAR(found[0], 1, 1e-6);
  EXPECT_NEAR(found[1], 1, 1e-6);
}

TEST(LeastSquares, WhatRunsAwayStopsAtTheBound) {
  const auto slope = [](const Vector& x) { return Vector{std::exp(-x[0]), x[1] - 2}; };
  const Vector found = least_squares(slope, {0, 0});
  EXPECT_GT(found[0], 8);
  EXPECT_LE(found[0], 12);
  EXPECT_NEAR(found[1], 2, 1e-6);
}

}  // namespace
}  // namespace qnpu
