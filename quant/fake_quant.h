// The simulator form of an artifact: the float forward pass with every site rounded to the grid of
// its QParams and every weight replaced by scale * integer. It differs from the integer runtime in
// the rounding of each operation only; their distance is tested per site (tests/).
#pragma once

#include "model/artifact.h"
#include "quant/simulator.h"

namespace qnpu {

// y = scale * (clamp(round(x / scale) + zero_point) - zero_point), halves to even.
void fake_quantize(const float* x, int64_t count, const QParams& qparams, float* y);
torch::Tensor fake_quantized(const torch::Tensor& x, const QParams& qparams);  // fp32

// A hook that rounds every site of at most 8 bits to the grid of its QParams. 16-bit sites, whose
// noise is far below, pass through. `graph` must stay alive; its QParams may change meanwhile.
SiteHook site_quant_hook(const Graph& graph);

// A hook that rounds every site to its grid, and cuts before where the NPU cuts: the low bits of
// 16-bit products, RMSNorm's fraction. `artifact` must stay alive.
SiteHook fake_quant_hook(const Artifact& artifact);

// Puts an artifact's weights, biases, tables and prefix, as real numbers, into a simulator (which
// is reset).
void set_artifact_weights(Simulator& simulator, const Artifact& artifact);

// The same in parts: the weights and tables of one node, and the prefix (which resets).
void set_node_weights(Simulator& simulator, const Artifact& artifact, const Node& node);
void set_artifact_prefix(Simulator& simulator, const Artifact& artifact);

}  // namespace qnpu
