// Levenberg and Marquardt's method, for a handful of numbers.
#pragma once

#include <functional>
#include <vector>

namespace qnpu {

using Residuals = std::function<std::vector<double>(const std::vector<double>& x)>;

// A local minimum of the sum of squares of residuals(x), from `start`. Every x is kept within
// -12 .. 12: parameters are meant as logarithms, and one that runs away is at its bound there to
// five digits.
std::vector<double> least_squares(const Residuals& residuals, std::vector<double> start);

}  // namespace qnpu
