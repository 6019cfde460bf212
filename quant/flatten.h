// Rotations under which 4-bit weights round best. What rounding a row costs goes with its scale,
// and that is small where no weight stands out from the others, as the fourth powers of the
// weights tell (OptRot: Gadhikar, Hensman, Grazzi 2025, arXiv 2512.24124). From where they are, R1
// and R2 descend
//
//   L(R) = mean over vectors v of the mean over k of (v R)_k^4
//
//   R1   v: rows of the linears that read the residual stream, each of mean square 1, since each
//        has a scale of its own; columns of those that write it, in units of their matrix's root
//        mean square
//   R2   v: of the weights already turned by R1, columns of v_proj by head and rows of o_proj by
//        head, in units of their matrix's root mean square
//
// The minimum is 1, all of the same magnitude; 3 is a normal distribution, which is what Hadamard
// matrices come to. The function stays: rotations are exact.
#pragma once

#include "model/graph.h"
#include "quant/calibrate.h"
#include "quant/float_model.h"
#include "quant/learn/workers.h"

namespace qnpu {

// Of the vectors each step of R1 sees one part, one after the other. 17 is prime to all head sizes,
// so that each part has rows of all kinds.
constexpr int kFlattenParts = 17;

struct Flattening {
  Rotations rotations;  // to be applied to the model, on top of what it has been turned by
  double before = 0.0;  // L of R1 over all vectors
  double after = 0.0;
};

// Of the layers' linears and the head, those whose weights have 4 bits. `model` is turned by the
// recipe's rotations; R1 and R2 are found where the recipe has them. `progress`: steps of R1, then
// the layers' R2.
Flattening flatten(const FloatModel& model, const Graph& graph, const Recipe& recipe,
                   const WindowProgress& progress = {}, const Workers& workers = {});

}  // namespace qnpu
