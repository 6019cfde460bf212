// What is learned of a network: scales of the linears' inputs, weights and outputs, norm weights,
// the weights before rounding, or rotations or scales of channels under fixed weights; and how a
// step changes them.
//
// A weight is scale * x, x in units of its scale: then one learning rate fits all layers, and a
// step of the scale does not move x across roundings.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "model/graph.h"
#include "quant/float_model.h"
#include "quant/learn/channel_learner.h"
#include "quant/learn/network.h"
#include "quant/learn/norm_learner.h"
#include "quant/learn/optimizer_ops.h"
#include "quant/learn/range_learner.h"
#include "quant/learn/rotation_learner.h"
#include "quant/learn/scale_optimizer.h"
#include "quant/learn/workers.h"
#include "quant/tensor.h"

namespace qnpu {

struct Rates {
  double rotations = 0.0;
  double scales = 0.0;
  double weights = 0.0;
};

using NamedTensors = std::vector<std::pair<std::string, torch::Tensor>>;

class Parameters {
 public:
  // If weights are learned, the student's become views of x, in units of their scales, until
  // finish(). `rotations`: where learned rotations start. References must stay alive.
  Parameters(FloatModel& student, Graph& graph, Network& network, const LearnSpec& spec,
             const Rotations& rotations, const Workers& workers = {});

  // Applies what the networks' groups gathered in all workers from `tokens` tokens and clears it;
  // the network has the new integers, scales and rotations. Between workers travel the gradients of
  // scales and rotations, and those of weights only if weights are learned.
  void step(const Rates& rates, int64_t tokens);

  // Weights as real numbers, rotated or with scaled channels, into the student; scales into the
  // graph's sites.
  void finish();

  // Every tensor that a continued run needs. Overwrite them in place, then call restored().
  NamedTensors state() const;
  void restored(int steps);

  // The values at a moment, to go back to; of learned weights the integers that they round to.
  struct Snapshot {
    std::vector<torch::Tensor> integers;  // by group [N, K] int8, if weights are learned
    NamedTensors others;
  };
  Snapshot snapshot() const;
  void restore(const Snapshot& snapshot);

  // How far each kind of what is learned is from `start`, root mean square: of scales, norms and
  // channels the difference of the logarithms, of rotations |R - R0| / sqrt(n), for small ones the
  // angle in radians. Kinds: "input_scales", "output_scales", "weight_scales", "norms",
  // "channel_scales", "rotations"; those that are learned.
  std::map<std::string, double> movement(const Snapshot& start) const;

  double largest_drift() const { return rotations_ ? rotations_->largest_drift() : 0.0; }

 private:
  struct Group {
    RoundedWeights weights;
    ScaleVector scale;
    torch::Tensor m, v;  // Adam's, if the weights move
  };

  void make(size_t index);
  torch::Tensor fixed_weights(size_t index);
  ScaleRule rule(double rate) const;
  // d(loss) / d(log scale) [n], fp64, of weights by group, if those are learned; all other
  // gradients stay where they are.
  std::vector<torch::Tensor> gather_gradients();
  void step_scale(size_t index, const torch::Tensor& gradients, const Rates& rates);
  void step_weights(size_t index, const Rates& rates);
  void pull_back(size_t index);
  void share(size_t index);
  void share_scale(size_t index);
  NamedTensors values() const;
  bool weights_wanted() const;
  bool weights_move() const { return spec_.weights && spec_.lr_weights > 0.0; }

  FloatModel& student_;
  Graph& graph_;
  Network& network_;
  LearnSpec spec_;
  const Workers workers_;
  RangeLearner ranges_;
  std::optional<RotationLearner> rotations_;
  std::optional<NormLearner> norms_;
  std::optional<ChannelLearner> channels_;
  std::vector<Group> groups_;  // beside network.groups()
  int steps_ = 0;
};

}  // namespace qnpu
