// Attention in the simulator: caches, and scores to context by chunks of heads.
#include <algorithm>
#include <cmath>

#include "quant/simulator.h"

namespace qnpu {
namespace {

// Numbers in one chunk of scores: 64 MB in fp32, 4 heads of 2048 x 2048.
constexpr int64_t kChunkElements = int64_t{1} << 24;

}  // namespace

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

}  // namespace qnpu
