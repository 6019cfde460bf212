// Which inputs of down_proj suffer most at 8 bits (method.md 1.9, Eq. 4): by layer
//
//   ratio = mean over values of |deq(x) - x| / (|x| + 1e-8),   8 bits, symmetric, max-min
//
// A value that rounds to zero counts 1, one that is far above a step nearly 0: what is measured is
// in effect the share of values that one large channel or token has pushed to zero.
#pragma once

#include <vector>

#include "quant/calibrate.h"

namespace qnpu {

struct Sensitivity {
  std::vector<double> ratio;  // by layer
  std::vector<int> chosen;    // layers with the largest ratios, ceil(share * layers), in order
};

// Reads the windows twice, for the ranges and for the errors; keeps no activations.
Sensitivity measure_sensitivity(const FloatModel& model, const Graph& graph,
                                const std::vector<Window>& windows, const SensitivitySpec& spec,
                                const WindowProgress& progress);

// Appends a rule of 16 bits for the input of down_proj of each chosen layer.
void widen_sensitive(Recipe& recipe, const Sensitivity& sensitivity);

}  // namespace qnpu
