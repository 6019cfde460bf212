#include "quant/simulator.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "quant/matmul.h"
#include "quant/spill.h"

namespace qnpu {
namespace {

// Numbers in one chunk of scores: 64 MB in fp32, 4 heads of 2048 x 2048.
constexpr int64_t kChunkElements = int64_t{1} << 24;
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

// The nodes from a kScores to its kContext, by chunks of heads. Returns the index of the kContext.
int Simulator::attention(int begin, Values& values, const SiteHook& hook) {
  int end = begin;
  while (graph_.nodes[end].op != Op::kContext) ++end;
  const torch::Tensor& q = values[graph_.nodes[begin].in[0]];
  const int64_t elements = q.size(0) * q.size(1) * (position_ + q.size(1));  // of one head
  const int all = graph_.nodes[begin].heads;
  const int chunk = static_cast<int>(std::clamp<int64_t>(kChunkElements / elements, 1, all));
  std::vector<torch::Tensor> contexts;
  for (int first = 0; first < all; first += chunk) {
    const Heads heads{first, std::min(chunk, all - first)};
    contexts.push_back(attend(begin, end, heads, values, hook));
  }
  const int out = graph_.nodes[end].out;
  const torch::Tensor whole = torch::cat(contexts, -1);
  values[out] = hook ? hook(out, whole) : whole;
  return end;
}

// One chunk of heads: [B, T, heads.count * head_dim].
torch::Tensor Simulator::attend(int begin, int end, Heads heads, Values& values,
                                const SiteHook& hook) {
  for (int i = begin; i < end; ++i) {
    const Node& node = graph_.nodes[i];
    const torch::Tensor out = evaluate(node, values, heads);
    values[node.out] = hook ? hook(node.out, out) : out;
    const int in = node.in[0];
    if (graph_.site(in).role == Role::kScores) values[in] = torch::Tensor();
  }
  return evaluate(graph_.nodes[end], values, heads);
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

torch::Tensor Simulator::append(const Node& node, const torch::Tensor& rows, const SiteHook& hook) {
  torch::Tensor& cache = caches_[node.out];
  if (!cache.defined() && prefix_length_ > 0) cache = first_rows(node.out, rows.size(0), hook);
  const torch::Tensor kept = hook ? hook(node.out, rows) : rows;
  cache = cache.defined() ? torch::cat({cache, kept}, 1) : kept;
  return cache;
}

// The prefix's rows of a cache, as the hook leaves them, for each sequence: [B, P, cols].
torch::Tensor Simulator::first_rows(int site, int64_t batch, const SiteHook& hook) const {
  const torch::Tensor rows = prefix_[site].unsqueeze(0);
  return (hook ? hook(site, rows) : rows).expand({batch, -1, -1});
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

// scores[b, h, t, c] = attention_scale * q[b, t, h] . k[b, c, h / group]
torch::Tensor Simulator::scores(const Node& node, const Values& values, Heads heads) const {
  const torch::Tensor& q = values[node.in[0]];
  torch::Tensor out;
  if (decodes(q, heads)) {
    const torch::Tensor keys = kv_heads(values[node.in[1]]);
    const torch::Tensor queries = q.reshape({q.size(0), keys.size(1), -1, keys.size(3)});
    out = torch::matmul(queries, keys.transpose(2, 3)).flatten(1, 2).unsqueeze(2);
  } else {
    const torch::Tensor keys = cached_heads(values[node.in[1]], heads);
    const torch::Tensor queries =
        q.unflatten(-1, {node.heads, q.size(-1) / node.heads}).narrow(2, heads.first, heads.count);
    out = torch::matmul(queries.transpose(1, 2), keys.transpose(2, 3));
  }
  if (model_.attention_scale != 1.0) out = out * model_.attention_scale;
  if (out.size(2) == 1) return out;  // the newest token sees everything
  return torch::where(visible(out), out, out.narrow(3, 0, 1));
}

torch::Tensor Simulator::softmax(const torch::Tensor& scores) const {
  if (scores.size(2) == 1) return torch::softmax(scores, -1);
  return torch::softmax(scores.masked_fill(visible(scores).logical_not(), -INFINITY), -1);
}

// Probabilities [B, h, T, C] times values -> [B, T, h * head_dim].
torch::Tensor Simulator::context(const Node& node, const Values& values, Heads heads) const {
  const torch::Tensor& p = values[node.in[0]];
  if (decodes(p.transpose(1, 2), heads)) {
    const torch::Tensor v = kv_heads(values[node.in[1]]);
    const torch::Tensor rows = p.reshape({p.size(0), v.size(1), -1, p.size(3)});
    return torch::matmul(rows, v).flatten(1).unsqueeze(1);
  }
  const torch::Tensor v = cached_heads(values[node.in[1]], heads);
  return torch::matmul(p, v).transpose(1, 2).flatten(2);
}

// One token of each sequence [B, 1, ...], all heads at once: a group's queries are then the rows
// that meet its keys and values, and no cache is copied for each of them.
bool Simulator::decodes(const torch::Tensor& rows, Heads heads) const {
  return rows.size(1) == 1 && heads.count == graph_.config.num_heads;
}

// A cache's rows [B, C, cols] as [B, kv heads, C, head_dim].
torch::Tensor Simulator::kv_heads(const torch::Tensor& cache) const {
  const ModelConfig& config = graph_.config;
  return cache.unflatten(-1, {config.num_kv_heads, config.head_dim}).transpose(1, 2);
}

// The cache's rows as the given query heads see them: [B, C, cols] -> [B, h, C, head_dim].
torch::Tensor Simulator::cached_heads(const torch::Tensor& cache, Heads heads) const {
  const ModelConfig& config = graph_.config;
  const torch::Tensor query_heads =
      torch::arange(heads.first, heads.first + heads.count, cache.device());
  const torch::Tensor kv_heads =
      torch::floor_divide(query_heads, config.num_heads / config.num_kv_heads).to(torch::kInt64);
  const torch::Tensor split = cache.unflatten(-1, {config.num_kv_heads, config.head_dim});
  return split.index_select(2, kv_heads).transpose(1, 2);
}

// [T, C] of scores [B, h, T, C]: token t of this call, at position C - T + t, sees that position
// and all before it.
torch::Tensor Simulator::visible(const torch::Tensor& scores) const {
  const int64_t t = scores.size(2), c = scores.size(3);
  return torch::ones({t, c}, scores.options().dtype(torch::kBool)).tril(c - t);
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
