// Outlier-channel splitting at down_proj, exact and offline. The MLP computes
// down(silu(gate x) * (up x)): channel j may be computed m times over, each copy with its up row
// divided by m c and its down column multiplied by c, and nothing changes. Where a channel is far
// larger than the others, that makes the range of down_proj's input, which has one scale for all
// channels, smaller by m c. The copies' shares of the channel differ a little: equal ones would be
// rounded alike, by up_proj's output and by down_proj's input, and their errors add up m times
// instead of averaging out. c moves a part of the range into the weights of down_proj without new
// channels. 4-bit weights bear little of that: then only outliers have a c, at least 1 (balance).
// 8-bit weights bear more: then each channel's c, above or below 1, brings it half of the way, in
// decibels, to where it fills the ranges of up_proj's output or of down_proj's input as far as all
// others do (equalize). All of the way is worse in other text than was looked at, since then each
// channel's rare values, not only the outliers', leave the range.
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
  std::vector<double> balance;  // c_j
};

// The largest magnitude of each channel, [F].
struct MlpMaxima {
  torch::Tensor up;    // of up_proj's output
  torch::Tensor down;  // of down_proj's input
};

//   m_j = ceil(down_j / (ratio * median)), at most 64; `ratio` is doubled until the sum of m_j is
//   at most 2 F. Then channels that are still largest get further copies until the width is a
//   multiple of spec.multiple;
//   c_j = down_j / (m_j * median * ratio / balance), between 1 and balance; with spec.equalize
//   c_j = sqrt(max(up_j / median(up), down_j / median(down)) / m_j), at least 1/4: of a channel
//   that the text hardly uses, other text may make more.
SplitPlan plan_split(const MlpMaxima& maxima, const SplitSpec& spec);

// Widens the MLP of a layer by the plan: gate, up and down weights, and config.intermediate_sizes.
// The order of channels is kept, copies stand side by side.
void split_mlp(FloatModel& model, int layer, const SplitPlan& plan);

// The sites whose maxima are needed: up_proj's outputs and down_proj's inputs.
std::vector<int> split_sites(const Graph& graph);

// Every layer by its own plan. `maxima`: by site. `graph` is then that of a narrower model.
void split_channels(FloatModel& model, const Graph& graph,
                    const std::map<int, torch::Tensor>& maxima, const SplitSpec& spec);

}  // namespace qnpu
