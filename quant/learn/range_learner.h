// Scales of activations while they are learned: of the linears' inputs, and of their outputs.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "model/graph.h"
#include "quant/learn/network.h"
#include "quant/learn/scale_optimizer.h"
#include "quant/tensor.h"

namespace qnpu {

class RangeLearner {
 public:
  // From the grids of the network's groups; those that the recipe section wants are learned.
  // References must stay alive.
  RangeLearner(Graph& graph, Network& network, const LearnSpec& spec);

  // d(loss) / d(log scale), fp64, of inputs and of outputs, as far as this worker read: to be
  // summed over the workers, in place, before the step. Clears what the network gathered.
  std::vector<torch::Tensor> gradients();

  // `tokens`: of the step, in all workers. The network, and for outputs the sites, have the new
  // scales.
  void step(const ScaleRule& rule, int64_t tokens);

  void finish();  // the inputs' scales into the graph's sites

  // Tensors of a continued run, or of a value to go back to; overwrite them, then call restored().
  std::vector<std::pair<std::string, torch::Tensor>> values() const;
  std::vector<std::pair<std::string, torch::Tensor>> state() const;
  void restored();

 private:
  void find_outputs();
  void step_inputs(const ScaleRule& rule, int64_t tokens);
  void step_outputs(const ScaleRule& rule, int64_t tokens);
  void share_inputs();
  void share_outputs();

  Graph& graph_;
  Network& network_;
  const bool learn_inputs_, learn_outputs_;
  ScaleVector inputs_;                  // [groups]; 1 where an input is not rounded
  std::vector<LinearPart*> parts_;      // of the network's groups: whose outputs are learned
  ScaleVector outputs_;                 // [parts_]
  torch::Tensor d_inputs_, d_outputs_;  // beside them
};

}  // namespace qnpu
