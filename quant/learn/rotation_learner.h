// R1 and R2 while they are learned. The network's weights are the source's, rotated anew once per
// optimizer step (in fp32: the rounding of 4 bits is far coarser); the gradients of the rotated
// weights, summed over a step, become gradients of R1 and R2 once per step (method.md 2.6):
//
//   q, k, gate, up  A = W R1                      dR1 += W' dA
//   v               A = W R1, R2' A per KV head   dR2 += A dV' (per head), dA = R2 dV, dR1 += W' dA
//   o               B = R1' W, B R2 per head      dR2 += B' dO (per head), dB = dO R2', dR1 += W
//   dB' down            B = R1' W                     dR1 += W dB'
//
// Embedding rows and the head's input are turned within the network (network.h), biases and the
// prefix's values likewise; libtorch adds their gradients to the same R1 and R2.
//
// Without quantizers the loss does not depend on a rotation: the gradient is a small difference, so
// sums are fp32 at least, and R1, R2, their steps and the final fold fp64.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "model/graph.h"
#include "quant/float_model.h"
#include "quant/learn/network.h"
#include "quant/tensor.h"

namespace qnpu {

class RotationLearner {
 public:
  // `source`: norms folded, not rotated. References must stay alive.
  RotationLearner(const FloatModel& source, const Graph& graph, Network& network,
                  const Rotations& start);

  // The group's rotated weights [N, K] fp32. Call it for all groups after each step.
  torch::Tensor weights(const LinearGroup& group);

  // From the gradient of the rotated weights [N, K].
  void pull_back(const LinearGroup& group, const torch::Tensor& gradient);

  // Of R1 if there is one, then of the R2s, zeros where nothing was gathered: to be changed in
  // place.
  std::vector<torch::Tensor> gradients();

  // One Cayley step of each matrix; clears the gradients, gives the network the new matrices.
  void step(double rate, double decay);

  // Orthogonal to machine precision.
  Rotations result() const;

  // max |R'R - I| before it was repaired
  double largest_drift() const { return largest_drift_.item<double>(); }
  std::vector<std::pair<std::string, torch::Tensor>> state() const;
  void restored();  // after the tensors of state() were overwritten

 private:
  struct Part {
    std::string name;  // of the linear
    int layer;
    bool reads, writes, values, context;  // the residual stream; v_proj; o_proj
  };
  Part part_of(const LinearPart& linear) const;
  torch::Tensor rotated(const Part& part) const;
  void pull_back(const Part& part, const torch::Tensor& gradient);
  void share();
  torch::Tensor r1() const { return network_.r1.detach(); }
  torch::Tensor r2(int layer) const { return network_.r2[static_cast<size_t>(layer)].detach(); }

  const FloatModel& source_;
  const Graph& graph_;
  Network& network_;
  Rotations rotations_;                  // fp64
  std::vector<torch::Tensor> momentum_;  // of R1 if there is one, then R2s
  torch::Tensor largest_drift_ = torch::zeros({1}, torch::kFloat64);
};

}  // namespace qnpu
