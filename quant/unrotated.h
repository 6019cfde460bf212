// What the inputs of linears were before the rotation: seen through the rotated model, whose values
// are turned back (x = x' R'), so that no second pass over the text is needed. Of the first tokens
// only: a histogram needs no more, and turning back costs a product.
#pragma once

#include <map>

#include "model/graph.h"
#include "quant/float_model.h"
#include "quant/observer.h"
#include "quant/simulator.h"

namespace qnpu {

constexpr int kUnrotatedTokens = 2048;

class UnrotatedInputs {
 public:
  UnrotatedInputs() = default;  // watches nothing

  // Inputs that R1 or R2 turned, by their rotations. `graph` must stay alive while hook() is used.
  UnrotatedInputs(const Graph& graph, const Rotations& rotations);

  // Observes, without attention sinks, and returns what it was given.
  SiteHook hook();

  const std::map<int, SiteStatistics>& statistics() const { return statistics_; }  // by site

 private:
  void see(int site, const torch::Tensor& value);

  std::map<int, torch::Tensor> back_;  // R' by site [n, n], of a row or of each head
  std::map<int, int> tokens_;          // seen so far, by site
  std::map<int, SiteStatistics> statistics_;
};

}  // namespace qnpu
