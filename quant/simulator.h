// The one float forward pass: a walk over the node list. What happens at a site is the caller's
// choice: nothing (the float model), observing, fake quantization, recording.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <vector>

#include "model/graph.h"
#include "quant/float_model.h"

namespace qnpu {

// Called after every node with the site it wrote and its value; the walk goes on with what is
// returned. Values: kActivation [B, T, cols]; kScores [B, H, T, C]; caches [B, C, cols].
// Empty: identity.
using SiteHook = std::function<torch::Tensor(int site, const torch::Tensor& value)>;

class Simulator {
 public:
  // `dtype` is that of the matrix products (kFloat32 or kBFloat16). References must stay alive.
  Simulator(const FloatModel& model, const Graph& graph,
            torch::ScalarType dtype = torch::kFloat32);

  // tokens [B, T] int64, appended to the KV cache. Returns the final norm's output [B, T, D] (input
  // of the head). Memory: scores are made head by head in chunks, never all layers at once.
  torch::Tensor forward(const torch::Tensor& tokens, const SiteHook& hook = {});

  // Logits [rows, V] in fp32 of hidden rows [rows, D]; call it by chunks of rows.
  torch::Tensor logits(const torch::Tensor& hidden, const SiteHook& hook = {});

  void reset();  // empty KV cache
  int position() const;

  // Replaces a weight for this simulator only (a dequantized or fake-quantized one).
  void set_weight(const std::string& name, torch::Tensor weight);

 private:
  const FloatModel& model_;
  const Graph& graph_;
  torch::ScalarType dtype_;
  std::map<std::string, torch::Tensor> weights_;
  std::vector<torch::Tensor> caches_;  // by site index
  int position_ = 0;
};

}  // namespace qnpu
