// How far a model's predictions move when a part of it is changed: the float model reads a few
// windows once, and then again only from the layer on that is changed.
#pragma once

#include <string>
#include <vector>

#include "quant/calibrate.h"
#include "quant/simulator.h"

namespace qnpu {

class DivergenceProbe {
 public:
  // Windows of one length, read as one batch. References must stay alive. Memory: logits [tokens,
  // V] in fp32, and the residual stream [tokens, D] at the beginning of each layer.
  DivergenceProbe(const FloatModel& model, const Graph& graph, const std::vector<Window>& windows);

  // Mean over all tokens of KL(float model || as changed), in nats. What is changed, by set_weight
  // or the hook, lies in `layer` or behind it; -1: the final norm or the head.
  double divergence(int layer, const SiteHook& hook = {});

  void set_weight(const std::string& name, const torch::Tensor& weight) {
    simulator_.set_weight(name, weight);
  }

 private:
  size_t place(int layer) const;
  torch::Tensor hidden_from(size_t place, const SiteHook& hook);

  const Graph& graph_;
  Simulator simulator_;
  std::vector<int> begin_;                 // first node of each layer, and of what follows the last
  std::vector<Simulator::Values> values_;  // there
  torch::Tensor logits_;                   // of the float model [tokens, V]
};

}  // namespace qnpu
