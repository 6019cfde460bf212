// Orthogonal matrices to start rotations from: Hadamard matrices (entries +-1 / sqrt(n)) for every
// size that a real model has, and random ones.
//
// n = K * 2^m is built from an H_K by doubling, H_2n = [[H, H], [H, -H]]. An H_K comes from
//   Paley I            K = q + 1,     q = 3 mod 4 a prime or its square
//   Paley II           K = 2 (q + 1), q = 1 mod 4 a prime or its square (52: q = 25)
//   Goethals-Seidel    K = 4 w, from four circulants: w = 23, 29, 39, 43 (156, 172)
//   Kronecker product  of two smaller ones.
#pragma once

#include <cstdint>

#include "quant/tensor.h"

namespace qnpu {

// Entries +-1, int8 [n, n]; an undefined tensor if no construction is known.
torch::Tensor hadamard_signs(int n);

// Orthogonal, fp64 [n, n]. Error naming n if no construction is known.
torch::Tensor hadamard(int n);

// diag(+-1) * H: the signs come before the mixing, so that no direction of the input (above all its
// mean, which a plain H sends into one channel) is special. Depends on n and seed alone.
torch::Tensor random_hadamard(int n, uint64_t seed);

// Uniformly distributed (Haar): Q of the QR decomposition of a Gaussian matrix, with the signs that
// make R's diagonal positive. fp64 [n, n].
torch::Tensor random_orthogonal(int n, uint64_t seed);

}  // namespace qnpu
