#include "quant/simulator.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "quant/matmul.h"
#include "quant/spill.h"

namespace qnpu {
namespace {

constexpr int kFirstRopeRows = 2048;

// y = gamma * x / sqrt(mean(x^2) + eps), for each of `heads` parts of a row. A bf16 row is
// normalised in fp32 and rounded before gamma, as transformers does.
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& gamma, int heads, double eps) {
  const torch::Tensor parts = x.unflatten(-1, {heads, x.size(-1) / heads});
  const auto wide_type = x.scalar_type() == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32;
  const torch::Tensor wide = parts.to(wide_type);
  const torch::Tensor mean_square = wide.square().mean(-1, /*keepdim=*/true);
  const torch::Tensor normalised = wide * torch::rsqrt(mean_square + eps);
  return (normalised.to(x.scalar_type()) * gamma).flatten(-2);
}

// Per head [a, b] -> [-b, a].
torch::Tensor rotate_half(const torch::Tensor& x, int heads) {
  const torch::Tensor halves = x.unflatten(-1, {heads, 2, x.size(-1) / (2 * heads)});
  return torch::stack({-halves.select(-2, 1), halves.select(-2, 0)}, -2).flatten(-3);
}

// x [B, T, heads * head_dim] times table [T, head_dim / 2], for both halves of each head.
torch::Tensor rope_mul(const torch::Tensor& x, const torch::Tensor& table, int heads) {
  const torch::Tensor halves = x.unflatten(-1, {heads, 2, x.size(-1) / (2 * heads)});
  return (halves * table.unsqueeze(1).unsqueeze(1)).flatten(-3);
}

std::vector<int> last_uses(const Graph& graph) {
  std::vector<int> last(graph.sites.size(), -1);
  for (int i = 0; i < graph.nodes.size(); ++i) {
    for (int in : graph.nodes[i].in) last[in] = i;
  }
  return last;
}

int last_linear(const Graph& graph) {
  int i = static_cast<int>(graph.nodes.size()) - 1;
  while (i >= 0 && graph.nodes[i].op != Op::kLinear) --i;
  QNPU_ASSERT(i >= 0);
  return i;
}

}  // namespace

Simulator::Simulator(const FloatModel& model, const Graph& graph, torch::ScalarType dtype)
    : model_(model),
      graph_(graph),
      dtype_(dtype),
      device_(device_of(model)),
      online_(graph.nodes.size()),
      last_use_(last_uses(graph)),
      head_(last_linear(graph)),
      caches_(graph.sites.size()) {
  for (const auto& [name, tensor] : model.weights) {
    if (tensor.scalar_type() != dtype_) weights_[name] = tensor.to(dtype_);
  }
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const auto found = model.online.find(graph.nodes[i].name);
    if (found != model.online.end()) online_[i] = found->second.to(device_, dtype_);
  }
  set_prefix(model.prefix.rows);
}

torch::Tensor Simulator::forward(const torch::Tensor& tokens, const SiteHook& hook) {
  Values values = embed(tokens, hook);
  advance(1, head_, values, hook);
  position_ += static_cast<int>(tokens.size(1));
  return values[graph_.nodes[head_].in[0]];
}

Simulator::Values Simulator::embed(const torch::Tensor& tokens, const SiteHook& hook) {
  const torch::NoGradGuard no_grad;
  check_tokens(tokens);
  extend_rope(position_ + static_cast<int>(tokens.size(1)));
  Values values(graph_.sites.size());
  const Node& embedding = graph_.nodes.front();
  QNPU_ASSERT(embedding.op == Op::kEmbedding);
  const torch::Tensor table = weight(graph_.site(embedding.weight).name);
  const torch::Tensor rows = torch::embedding(table, tokens.to(device_));
  release_pages(table);
  values[embedding.out] = hook ? hook(embedding.out, rows) : rows;
  return values;
}

torch::Tensor Simulator::logits(const torch::Tensor& hidden, const SiteHook& hook) {
  const torch::NoGradGuard no_grad;
  Values values(graph_.sites.size());
  values[graph_.nodes[head_].in[0]] = hidden;
  advance(head_, static_cast<int>(graph_.nodes.size()), values, hook);
  const torch::Tensor& logits = values[graph_.nodes.back().out];
  return dtype_ == torch::kBFloat16 ? logits.to(torch::kFloat32) : logits;
}

void Simulator::reset() {
  for (torch::Tensor& cache : caches_) cache = torch::Tensor();
  position_ = prefix_length_;
}

void Simulator::set_prefix(const std::map<std::string, torch::Tensor>& rows) {
  prefix_.assign(graph_.sites.size(), torch::Tensor());
  prefix_length_ = 0;
  for (const Node& node : graph_.nodes) {
    if (node.op != Op::kAppend || rows.empty()) continue;
    const std::string& name = graph_.site(node.out).name;
    const auto found = rows.find(name);
    if (found == rows.end()) fail("The prefix has no rows for {}, which the graph needs.", name);
    prefix_[node.out] = found->second.to(device_, dtype_);
    prefix_length_ = static_cast<int>(found->second.size(0));
  }
  reset();
}

void Simulator::truncate(int position) {
  QNPU_ASSERT(position >= prefix_length_ && position <= position_);
  for (torch::Tensor& cache : caches_) {
    if (cache.defined()) cache = cache.narrow(1, 0, position);
  }
  position_ = position;
}

void Simulator::set_weight(const std::string& name, torch::Tensor weight) {
  weights_[name] = weight.to(device_, dtype_);
}

void Simulator::check_tokens(const torch::Tensor& tokens) const {
  QNPU_ASSERT(tokens.dim() == 2 && tokens.scalar_type() == torch::kInt64 && tokens.numel() > 0);
  const ModelConfig& config = graph_.config;
  const int64_t smallest = tokens.min().item<int64_t>();
  const int64_t largest = tokens.max().item<int64_t>();
  if (smallest < 0 || largest >= config.vocab_size) {
    fail("Token {} is outside the model's vocabulary of {}: use the checkpoint's own tokenizer.",
         smallest < 0 ? smallest : largest, config.vocab_size);
  }
  if (position_ + tokens.size(1) > config.max_positions) {
    fail("A sequence of {} tokens is longer than the model's {} positions{}: shorten it.",
         position_ - prefix_length_ + tokens.size(1), config.max_positions - prefix_length_,
         prefix_length_ == 0 ? "" : fmt::format(" behind a prefix of {}", prefix_length_));
  }
}

// Nodes [begin, end), each followed by the hook and by freeing what nobody reads any more.
void Simulator::advance(int begin, int end, Values& values, const SiteHook& hook) {
  const torch::NoGradGuard no_grad;
  for (int i = begin; i < end; ++i) {
    const Node& node = graph_.nodes[i];
    const int first = i;
    if (node.op == Op::kScores) {
      i = attention(i, values, hook);
    } else if (node.op == Op::kAppend) {
      values[node.out] = append(node, values[node.in[0]], hook);
    } else {
      const torch::Tensor out = turned(i, evaluate(node, values, {0, node.heads}));
      values[node.out] = hook ? hook(node.out, out) : out;
    }
    for (int done = first; done <= i; ++done) {
      for (int in : graph_.nodes[done].in) {
        if (last_use_[in] == done) values[in] = torch::Tensor();
      }
    }
  }
}

// Each part of n channels times the node's online rotation [n, n], if it has one.
torch::Tensor Simulator::turned(int node, const torch::Tensor& value) const {
  const torch::Tensor& rotation = online_[node];
  if (!rotation.defined()) return value;
  return torch::matmul(value.unflatten(-1, {-1, rotation.size(0)}), rotation).flatten(-2);
}

torch::Tensor Simulator::evaluate(const Node& node, const Values& values, Heads heads) const {
  const torch::Tensor& in = values[node.in[0]];
  switch (node.op) {
    case Op::kRmsNorm:
      return rms_norm(in, weight(graph_.site(node.weight).name), node.heads,
                      graph_.config.rms_norm_eps);
    case Op::kLinear:
      return linear(node, in);
    case Op::kRotateHalf:
      return rotate_half(in, node.heads);
    case Op::kRopeMul:
      return rope_mul(in, rope_rows(graph_.site(node.weight).name, in.size(1)), node.heads);
    case Op::kAdd:
      return in + values[node.in[1]];
    case Op::kMul:
      return in * values[node.in[1]];
    case Op::kSilu:
      return torch::silu(in);
    case Op::kScores:
      return scores(node, values, heads);
    case Op::kSoftmax:
      return softmax(in);
    case Op::kContext:
      return context(node, values, heads);
    case Op::kConvert:  // widths are the hook's business
    case Op::kMask:     // scores() and softmax() know which positions are visible
      return in;
    case Op::kEmbedding:
    case Op::kAppend:
      break;
  }
  fail("Node {} of kind {} stands where it cannot be computed.", node.name, op_name(node.op));
}

torch::Tensor Simulator::linear(const Node& node, const torch::Tensor& in) const {
  const torch::Tensor bias = node.bias ? weight(node.name + ".bias") : torch::Tensor();
  const torch::Tensor w = weight(graph_.site(node.weight).name);
  const torch::Tensor y = product(in, w, bias);
  release_pages(w);
  return y;
}

torch::Tensor Simulator::product(const torch::Tensor& in, const torch::Tensor& w,
                                 const torch::Tensor& bias) const {
  if (!fast_products_) return torch::linear(in, w, bias);
  const torch::Tensor y = matmul_bf16(in.flatten(0, -2), w.t());
  return (bias.defined() ? y + bias : y).unflatten(0, in.sizes().slice(0, in.dim() - 1));
}

torch::Tensor Simulator::weight(const std::string& name) const {
  const auto own = weights_.find(name);
  if (own != weights_.end()) return own->second;
  const auto models = model_.weights.find(name);
  if (models == model_.weights.end()) {
    fail("The model has no tensor {}, which the graph needs.", name);
  }
  return models->second;
}

// Rows [T, head_dim / 2] of the table for the tokens of this call.
torch::Tensor Simulator::rope_rows(const std::string& name, int64_t t) const {
  const auto own = weights_.find(name);
  const torch::Tensor& table = own != weights_.end() ? own->second : rope_.at(name);
  return table.narrow(0, position_, t);
}

// Tables for at least `positions`: cos and sin of position * inverse frequency, made in fp64.
void Simulator::extend_rope(int positions) {
  const int rows = rope_.empty() ? 0 : static_cast<int>(rope_["rope.cos"].size(0));
  if (rows >= positions) return;
  const int wanted = std::max({positions, 2 * rows, kFirstRopeRows});
  const torch::Tensor frequencies =
      torch::tensor(rope_inverse_frequencies(graph_.config), torch::kFloat64);
  const torch::Tensor angles = torch::outer(torch::arange(wanted, torch::kFloat64), frequencies);
  rope_["rope.cos"] = angles.cos().to(device_, dtype_);
  rope_["rope.sin"] = angles.sin().to(device_, dtype_);
}

}  // namespace qnpu
