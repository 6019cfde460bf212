// The steps of a run that change the float model exactly, or only choose widths.
#pragma once

#include "io/tokenizer.h"
#include "model/graph.h"
#include "quant/float_model.h"
#include "quant/run.h"

namespace qnpu {

// A prefix, smoothed channels, split channels: those that the recipe has. `graph` follows the
// model.
void take_outliers_away(Run& run, FloatModel& model, Graph& graph, const Tokenizer& tokenizer);

// The recipe's rotations, and on the rotated model the widths that it leaves to be measured
// (sensitivity, budget); they become rules of the run's recipe, and `graph` is built anew.
void turn(Run& run, FloatModel& model, Graph& graph);

}  // namespace qnpu
