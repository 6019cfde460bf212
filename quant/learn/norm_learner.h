// Norm weights while they are learned: gamma = gamma0 exp(u), u = 0 at first, one u per channel.
// The NPU multiplies by gamma anyway, so what they make up for costs nothing.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "model/graph.h"
#include "quant/float_model.h"
#include "quant/learn/network.h"
#include "quant/learn/scale_optimizer.h"
#include "quant/tensor.h"

namespace qnpu {

class NormLearner {
 public:
  // All norms of the graph. References must stay alive.
  NormLearner(const FloatModel& model, const Graph& graph, Network& network);

  // What was gathered, of the norms that gathered anything: to be changed in place.
  std::vector<torch::Tensor> gradients() const;

  // From the gradients that the network's gammas gathered, which are cleared.
  void step(const ScaleRule& rule);

  void finish(FloatModel& model) const;  // the learned weights into it

  // Tensors of a continued run, or of a value to go back to; overwrite them, then call restored().
  std::vector<std::pair<std::string, torch::Tensor>> values() const;
  std::vector<std::pair<std::string, torch::Tensor>> state() const;
  void restored() { share(); }

 private:
  struct Norm {
    int site;
    std::string name;
    torch::Tensor start;  // gamma0
    ScaleVector factor;   // exp(u)
  };
  torch::Tensor gamma(const Norm& norm) const;
  void share();

  Network& network_;
  std::vector<Norm> norms_;
};

}  // namespace qnpu
