// Steps of descent along orthogonal matrices (SpinQuant's Cayley SGD; method.md 2.5).
#pragma once

#include "quant/tensor.h"

namespace qnpu {

// One step from the orthogonal `r` [n, n] against the gradient dL/dR, both fp64. `momentum` [n, n]
// holds the tangent direction of earlier steps, weighed by `decay`; zero at first.
//
//   V = decay V - G'       H = V R - R' R V R / 2       W = H - H'     (skew: a tangent at R')
//   Y = R' + (a / 2) W (R' + Y), five times from Y = R' + a V, tends to the Cayley transform
//   (1 - a W / 2)^-1 (1 + a W / 2) R', which is orthogonal.      R = Y'      V = W R'
//
// a = min(rate, 1 / |W|_1), for which the iteration contracts.
void cayley_step(torch::Tensor& r, torch::Tensor& momentum, const torch::Tensor& gradient,
                 double rate, double decay);

// max |R'R - I|
double orthogonality_error(const torch::Tensor& r);

// The orthogonal matrix nearest to r, by Newton-Schulz iterations R <- R (3 - R'R) / 2; for an r
// that is nearly orthogonal already.
torch::Tensor orthogonalised(const torch::Tensor& r);

}  // namespace qnpu
