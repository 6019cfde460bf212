// Scales of channels while they are learned (MobileQuant; method.md 2.11): s = exp(u), u = 0 at
// first, one vector for each pair of channel_pairs.h. The network's weights are the source's,
// scaled anew once per optimizer step; with g = d(loss) / d(weight), summed over a step,
//
//   readers' columns  W[:, j] s_j         du_j += sum_n W[n, j] s_j g[n, j]
//   rows of up and v  W[j, :] / s_j       du_j -= d(loss) / d(log scale of the row)
//   norms             gamma_j / s_j       du_j -= gamma_j / s_j d(loss) / d(gamma_j / s_j)
//
// A row is divided by dividing its scale: its integers stay. Biases and the prefix's values are
// divided within the network (network.h); libtorch forms their gradients.
//
// Without quantizers the loss does not depend on s: the gradient is a small difference.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "model/graph.h"
#include "quant/channel_pairs.h"
#include "quant/float_model.h"
#include "quant/learn/network.h"
#include "quant/learn/scale_optimizer.h"
#include "quant/tensor.h"

namespace qnpu {

class ChannelLearner {
 public:
  // `source`: norms folded, not rotated by R1. References must stay alive.
  ChannelLearner(const FloatModel& source, const Graph& graph, Network& network);

  // The group's weights [N, K], and what its rows are divided by in them [N] fp64 (1: nothing).
  // Call both for all groups after each step.
  torch::Tensor weights(const LinearGroup& group) const;
  torch::Tensor row_divisors(const LinearGroup& group) const;

  // products [N, K] = weight * d(loss) / d(weight); rows [N] = d(loss) / d(log scale of the row).
  void pull_back(const LinearGroup& group, const torch::Tensor& products,
                 const torch::Tensor& rows);

  // d(loss) / du of each pair, fp64, complete: to be changed in place.
  std::vector<torch::Tensor> gradients();

  // From the gradients, which are cleared; the network has the new scales.
  void step(const ScaleRule& rule);

  void finish(FloatModel& model) const;  // folds the learned scales into it

  // Tensors of a continued run, or of a value to go back to; overwrite them, then call restored().
  std::vector<std::pair<std::string, torch::Tensor>> values() const;
  std::vector<std::pair<std::string, torch::Tensor>> state() const;
  void restored() { share(); }

 private:
  struct Channels {
    int layer;
    const ChannelPair* pair;
    std::string divider;     // name of the norm or linear
    int norm;                // site of its gamma; -1: a linear
    torch::Tensor gamma;     // of the norm, before it is divided
    ScaleVector factor;      // s
    torch::Tensor gradient;  // du
  };
  torch::Tensor divided_gamma(const Channels& channels) const;
  void share();

  const FloatModel& source_;
  const Graph& graph_;
  Network& network_;
  std::vector<Channels> all_;
  std::map<std::string, size_t> by_reader_;   // linear -> place in all_
  std::map<std::string, size_t> by_divider_;  // linear -> place in all_
};

}  // namespace qnpu
