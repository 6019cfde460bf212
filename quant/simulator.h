// The one float forward pass: a walk over the node list. What happens at a site is the caller's
// choice: nothing (the float model), observing, fake quantization, recording.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "model/graph.h"
#include "quant/float_model.h"
#include "quant/matmul.h"
#include "quant/tensor.h"

namespace qnpu {

// Called after every node with the site it wrote and its value; the walk goes on with what is
// returned. Empty: identity. Values have the simulator's type:
//
//   kActivation        [B, T, cols]; the logits' sites [rows, V]
//   kScores            [B, h, T, C] for a chunk of h of the H query heads, C = positions so far. A
//                      forward pass calls the hook for the chunks of a layer in the order of the
//                      heads; small inputs come as one chunk of all heads.
//   kKCache, kVCache   [B, T, cols]: the new rows only. What the hook returns is kept, so that each
//                      row is quantized, or observed, once. Both caches have positions as rows
//                      here. The rows of a prefix, [1, P, cols], come before a sequence's first
//                      ones, in a call of their own.
//
// Invisible (future) positions never disturb a range: in the outputs of kScores and kMask they hold
// the row's score of position 0, which every row sees, and in the probabilities 0.
using SiteHook = std::function<torch::Tensor(int site, const torch::Tensor& value)>;

class Simulator {
 public:
  // `dtype` is that of weights and values: kFloat32; kFloat64, to tell rounding from mistakes; or
  // kBFloat16, which rounds where transformers rounds in bf16 (a hook then sees bf16 values, too
  // coarse for 16-bit sites: calibrate in fp32). Values are on the device of the model's weights.
  // References must stay alive.
  Simulator(const FloatModel& model, const Graph& graph, torch::ScalarType dtype = torch::kFloat32);

  // tokens [B, T] int64 on the CPU, appended to the KV cache, which begins with the model's prefix.
  // Returns the final norm's output [B, T, D] (input of the head). Memory: every value is freed
  // after its last use, and scores are made for a few heads at a time. Error: a token outside the
  // vocabulary, more positions than the model has.
  torch::Tensor forward(const torch::Tensor& tokens, const SiteHook& hook = {});

  // The same walk in pieces, for those who take many sequences through a layer before the next one:
  // `values` (by site, of one sequence) begins with embed()'s and holds, after nodes [begin, end),
  // what later nodes read. Between sequences call reset(); a piece must hold a layer's attention
  // whole, from its kAppend to its kContext. The position stays where it is.
  using Values = std::vector<torch::Tensor>;
  Values embed(const torch::Tensor& tokens, const SiteHook& hook = {});
  void advance(int begin, int end, Values& values, const SiteHook& hook = {});

  // Products of linears in bf16 with fp32 sums (quant/matmul.h): two to three times faster, and
  // within 1 / 256 of each operand; only in models that gain from it.
  void use_fast_products() { fast_products_ = gains_from_bf16(graph_.config.hidden_size); }

  // Logits [rows, V] in fp32 (fp64 if the simulator is) of hidden rows [rows, D]; call it by chunks
  // of rows.
  torch::Tensor logits(const torch::Tensor& hidden, const SiteHook& hook = {});

  void reset();                               // the KV cache holds the prefix alone
  void truncate(int position);                // forget the tokens from `position` on, at least P
  int position() const { return position_; }  // tokens in the cache, the prefix's P included

  // Replaces a weight, bias or table for this simulator only (a dequantized or fake-quantized one).
  // "rope.cos" and "rope.sin" [P, head_dim / 2] need a row for every position that is used.
  void set_weight(const std::string& name, torch::Tensor weight);

  // Replaces the prefix for this simulator only, and resets it: rows [P, cols] by name of the cache
  // site, for every cache; an empty map: no prefix.
  void set_prefix(const std::map<std::string, torch::Tensor>& rows);

 private:
  struct Heads {
    int first;
    int count;
  };

  void check_tokens(const torch::Tensor& tokens) const;
  int attention(int begin, Values& values, const SiteHook& hook);
  torch::Tensor attend(int begin, int end, Heads heads, Values& values, const SiteHook& hook);
  torch::Tensor turned(int node, const torch::Tensor& value) const;
  torch::Tensor evaluate(const Node& node, const Values& values, Heads heads) const;
  torch::Tensor append(const Node& node, const torch::Tensor& rows, const SiteHook& hook);
  torch::Tensor first_rows(int site, int64_t batch, const SiteHook& hook) const;
  torch::Tensor linear(const Node& node, const torch::Tensor& in) const;
  torch::Tensor product(const torch::Tensor& in, const torch::Tensor& w,
                        const torch::Tensor& bias) const;
  torch::Tensor scores(const Node& node, const Values& values, Heads heads) const;
  torch::Tensor softmax(const torch::Tensor& scores) const;
  torch::Tensor context(const Node& node, const Values& values, Heads heads) const;
  bool decodes(const torch::Tensor& rows, Heads heads) const;
  torch::Tensor kv_heads(const torch::Tensor& cache) const;
  torch::Tensor cached_heads(const torch::Tensor& cache, Heads heads) const;
  torch::Tensor visible(const torch::Tensor& scores) const;
  torch::Tensor weight(const std::string& name) const;
  torch::Tensor rope_rows(const std::string& name, int64_t t) const;
  void extend_rope(int positions);

  const FloatModel& model_;
  const Graph& graph_;
  torch::ScalarType dtype_;  // of weights and values
  torch::Device device_;
  std::map<std::string, torch::Tensor> weights_;  // casts and replacements; others are the model's
  std::map<std::string, torch::Tensor> rope_;     // "rope.cos", "rope.sin" [P, head_dim / 2]
  std::vector<torch::Tensor> online_;             // by node: a rotation of what it computes
  std::vector<int> last_use_;                     // by site: the last node that reads it
  int head_ = 0;                                  // the lm_head node
  std::vector<torch::Tensor> prefix_;             // by site index: [P, cols]; undefined: none
  int prefix_length_ = 0;                         // P
  std::vector<torch::Tensor> caches_;             // by site index: [B, C, cols]
  int position_ = 0;
  bool fast_products_ = false;
};

}  // namespace qnpu
