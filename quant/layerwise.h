// Rounds the weights layer by layer (GPTQ), on calibration text that has gone through what was
// rounded before: the quantized stream. With `feedback` a float stream runs beside it, and each
// linear is asked for the float model's output rather than for that of its own weights on already
// disturbed inputs:
//
//   minimise  sum over tokens |r_q + W' x_q - r_f - W x_f|^2      (r: what it is added to, if a
//   residual) W' = W + (W (X_f - X_q)' X_q + (R_f - R_q)' X_q) (X_q' X_q + damping)^-1
//
// Then W' is rounded under the same Hessian X_q' X_q (gptq.h). Memory: the activations of all
// windows at one place of the graph, twice with feedback; the weights of one layer.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "model/graph.h"
#include "quant/calibrate.h"
#include "quant/float_model.h"
#include "quant/learn/workers.h"

namespace qnpu {

// What rounding did to a linear: the squared error of its output relative to the output's square,
// on the calibration text.
struct RoundingReport {
  double gptq_error = 0.0;  // after GPTQ alone
  double error = 0.0;       // after scales and integers were improved
};
using RoundingReports = std::map<std::string, RoundingReport>;  // by name of the weight's site

// Is a node rounded here? The linears of the decoder layers are, and a head of 4 bits.
bool rounded_layerwise(const Graph& graph, const Node& node);

// `graph` holds the activations' QParams. Weights of those linears are replaced by ones that round
// to the integers chosen (inside their bins), and their sites get the scales. `progress` is called
// after each input and may throw to stop. Workers share the windows; each rounds all weights by the
// sums over all windows.
RoundingReports round_layerwise(FloatModel& model, Graph& graph, const std::vector<Window>& windows,
                                const GptqSpec& spec,
                                const std::function<void(int done, int total)>& progress,
                                const Workers& workers = {});

}  // namespace qnpu
