// Outlier-channel splitting at down_proj, exact and offline. The MLP computes
// down(silu(gate x) * (up x)): channel j may be computed m times over, each copy with its up row
// divided by m c and its down column multiplied by c, and nothing changes. Where a channel is far
// larger than the others, that makes the range of down_proj's input, which has one scale for all
// channels, smaller by m c. The copies' shares of the channel differ a little: equal ones would be
// rounded alike, by up_proj's output and by down_proj's input, and their errors add up m times
// instead of averaging out. c moves a part of the range into the weights of down_proj (balance)
// without new channels; it is never below 1, so the output of up_proj does not grow.
#pragma once

#include <map>
#include <vector>

#include "model/graph.h"
#include "quant/float_model.h"
#include "quant/tensor.h"

namespace qnpu {

// What becomes of each channel.
struct SplitPlan {
  std::vector<int> copies;      // m_j >= 1
  std::vector<double> balance;  // c_j >= 1
};

// maxima [F]: largest magnitude of each channel of down_proj's input.
//   m_j = ceil(max_j / (ratio * median)), at most 64; `ratio` is doubled until the sum of m_j is at
//   most 2 F. Then channels that are still largest get further copies until the width is a multiple
//   of spec.multiple; c_j = max_j / (m_j * median * ratio / balance), between 1 and balance.
SplitPlan plan_split(const torch::Tensor& maxima, const SplitSpec& spec);

// Widens the MLP of a layer by the plan: gate, up and down weights, and config.intermediate_sizes.
// The order of channels is kept, copies stand side by side.
void split_mlp(FloatModel& model, int layer, const SplitPlan& plan);

// The inputs of down_proj, by layer.
std::vector<int> split_sites(const Graph& graph);

// Every layer by its own plan. `maxima`: by site. `graph` is then that of a narrower model.
void split_channels(FloatModel& model, const Graph& graph,
                    const std::map<int, torch::Tensor>& maxima, const SplitSpec& spec);

}  // namespace qnpu
