// The model as learning sees it: the graph's node list, walked layer by layer with operations that
// have gradients, and rounding at the sites where the artifact rounds. With rounding off it is the
// float model (the teacher).
//
// The residual stream is fp32; what linears and attention compute is in `type`. Sites of 16 bits
// are not rounded. Nodes that belong together are computed by one operation: all linears of an
// input, RoPE's four, attention's from kScores to kContext, SiLU with its product.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "model/graph.h"
#include "quant/float_model.h"
#include "quant/learn/linear_group.h"
#include "quant/tensor.h"

namespace qnpu {

struct NetworkOptions {
  torch::ScalarType type = torch::kBFloat16;
  bool round_inputs = true;     // of linears, by their sites' scales ...
  bool dynamic_inputs = false;  // ... or each token by its own
  bool round_weights = true;  // by their sites' scales; chosen by weight_scales where there is none
  bool round_outputs =
      false;  // outputs of at most 8 bits of linears, SiLU, K and V, by their sites' scales
  bool round_head = true;  // the head's weights, if weights are rounded, and its 8-bit input
};

class Network {
 public:
  // References must stay alive. `graph` has the QParams of its activations where they are used.
  Network(const FloatModel& model, const Graph& graph, const NetworkOptions& options);

  int layers() const { return static_cast<int>(layers_.size()); }
  torch::Tensor embed(const torch::Tensor& tokens) const;  // [B, T] int64 -> [B * T, D]
  // One decoder layer: residual stream [B * T, D] of B sequences -> the same.
  torch::Tensor layer(int layer, const torch::Tensor& hidden, int64_t batch);
  // Final norm: residual stream -> input of the head [B * T, D], rounded if that has at most 8
  // bits.
  torch::Tensor head_input(const torch::Tensor& hidden);

  std::vector<LinearGroup>& groups() { return groups_; }  // of all layers
  LinearGroup& head() { return head_; }
  const NetworkOptions& options() const { return options_; }
  torch::ScalarType wide() const { return wide_; }

  // What turns within the network while rotations are learned (rotation_learner.h): embedding rows
  // and biases of writers times R1, the head's input times R1', biases and prefix of v times R2.
  // The model's own are then not rotated, while the groups' integers are. Undefined or empty:
  // nothing.
  torch::Tensor r1;               // [D, D]
  std::vector<torch::Tensor> r2;  // by layer [head_dim, head_dim]
  // Norm weights that are learned, instead of the model's: by site.
  std::map<int, torch::Tensor> gammas;
  // What the rows of linears are divided by while scales of channels are learned
  // (channel_learner.h), by name of the linear: biases, and of v the prefix's values. The model's
  // own are then not divided, while the groups' scales are.
  std::map<std::string, torch::Tensor> divisors;

  // The group's weights below each other, [N, K] fp32, and the scales [N] (see linear_group.h) of
  // such weights: the sites' or, where they have none, those that weight_scales chooses.
  torch::Tensor stacked_weights(const LinearGroup& group) const;
  torch::Tensor stacked_scales(const LinearGroup& group, const torch::Tensor& weights) const;

 private:
  struct Range {
    int begin, end;  // nodes
  };
  struct Walk {
    std::vector<torch::Tensor> values;  // by site
    int64_t batch;
  };

  void find_layers();
  void make_group(int site);
  void fill(LinearGroup& group, bool round);
  int evaluate(int i, Walk& walk);
  void evaluate_linear(const Node& node, Walk& walk);
  int evaluate_rope(int i, Walk& walk);
  int evaluate_attention(int i, Walk& walk);
  int evaluate_silu(int i, Walk& walk);
  torch::Tensor run(Range range, int in, const torch::Tensor& value, int64_t batch);
  torch::Tensor rope_rows(const torch::Tensor& table, int64_t tokens) const;
  Grid output_grid(int site) const;
  torch::Tensor bias(const LinearGroup& group) const;
  torch::Tensor gamma(int site) const;
  const torch::Tensor& weight(const std::string& name) const;
  torch::Tensor prefix_rows(int cache) const;

  const FloatModel& model_;
  const Graph& graph_;
  NetworkOptions options_;
  torch::ScalarType wide_;  // of the residual stream: fp32, fp64 if `type` is
  std::vector<Range> layers_;
  Range tail_{};                     // the final norm, without the head
  std::vector<LinearGroup> groups_;  // linears of the layers
  LinearGroup head_;
  std::vector<int> group_of_;  // by site; -1
  torch::Tensor cos_, sin_;    // [positions, head_dim / 2]
};

}  // namespace qnpu
