// What published methods do at run time and a static integer graph cannot: Hadamard rotations of
// activations, and a scale for each token. In the float simulator alone, to compare with.
//
//   R3   q H and k H of each head after RoPE: (q H) (k H)' = q k'
//   R4   (x H) (W H)' = x W' at down_proj; W H is folded, x H is computed
#pragma once

#include "model/artifact.h"
#include "quant/float_model.h"
#include "quant/simulator.h"

namespace qnpu {

// The rotations that the recipe wants, for FloatModel::online. Error if no Hadamard matrix of a
// size is known.
OnlineRotations online_rotations(const Graph& graph, const Recipe& recipe,
                                 torch::Device device = torch::kCPU);

// Gives them to the model, folds R4 into down_proj and R3 into the keys of a prefix. Keeps the
// function.
void rotate_online(FloatModel& model, const Graph& graph, const Recipe& recipe);

// Like fake_quant_hook, but the inputs of linears of at most 8 bits have one scale per token,
//   scale[t] = max_j |x[t, j]| / qmax,
// and nothing else of at most 8 bits is rounded but the caches: an engine that finds scales at run
// time keeps what lies between the linears in floating point. `artifact` must stay alive.
SiteHook dynamic_quant_hook(const Artifact& artifact);

// What an artifact needs to be simulated, whatever its recipe: a model of its configuration and
// online rotations, without weights (set_artifact_weights), and the hook.
FloatModel simulated_model(const Artifact& artifact);
SiteHook simulation_hook(const Artifact& artifact);

}  // namespace qnpu
