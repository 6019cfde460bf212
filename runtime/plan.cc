#include "runtime/plan.h"

#include <algorithm>

#include "kernels/attention/attention.h"

namespace qnpu {
namespace {

size_t align64(size_t bytes) { return (bytes + 63) / 64 * 64; }

size_t buffer_bytes(const Graph& graph, const Site& site, const PlanSize& size) {
  const auto capacity = static_cast<size_t>(size.capacity);
  const auto max_rows = static_cast<size_t>(size.max_rows);
  const auto cols = static_cast<size_t>(site.cols);
  const auto width = static_cast<size_t>(activation_bytes(site.qparams.dtype));
  switch (site.role) {
    case Role::kActivation:
      return align64(max_rows * cols * width);
    case Role::kScores:
      return align64(static_cast<size_t>(graph.config.num_heads) * max_rows * capacity * width);
    case Role::kKCache:
    case Role::kVCache: {
      const AttentionShape shape = {.context = size.capacity,
                                    .kv_heads = graph.config.num_kv_heads,
                                    .head_dim = graph.config.head_dim,
                                    .panels = size.cache_panels};
      return align64(site.role == Role::kKCache ? key_cache_bytes(shape)
                                                : value_cache_bytes(shape));
    }
    default:
      return 0;
  }
}

bool is_cache(const Site& site) { return site.role == Role::kKCache || site.role == Role::kVCache; }

// Caches live always; the last node's output until the caller has read it. Attention as a whole is
// done where its last node stands.
void set_lifetimes(const Graph& graph, Plan& plan) {
  const int end = static_cast<int>(graph.nodes.size());
  for (int i = 0; i < end; ++i) {
    const Node& node = graph.nodes[static_cast<size_t>(i)];
    Placement& out = plan.sites[static_cast<size_t>(node.out)];
    out.first = i;
    out.last = i;
    for (const int in : node.in) plan.sites[static_cast<size_t>(in)].last = i;
    if (node.op != Op::kContext) continue;
    const AttentionNodes attention = attention_nodes(graph, static_cast<size_t>(i));
    for (const int in : graph.nodes[attention.scores].in) {
      plan.sites[static_cast<size_t>(in)].last = i;
    }
  }
  plan.sites[static_cast<size_t>(graph.nodes.back().out)].last = end;
}

// First gap that is long enough among the buffers alive at the same time. `placed` is sorted by
// offset.
size_t first_gap(const std::vector<const Placement*>& placed, const Placement& buffer) {
  size_t offset = 0;
  for (const Placement* other : placed) {
    if (other->last < buffer.first || buffer.last < other->first) continue;
    if (other->offset >= offset + buffer.bytes) break;
    offset = std::max(offset, other->offset + other->bytes);
  }
  return offset;
}

// Largest first: the classic greedy, within a few per cent of the best on chains like these.
// Returns the end of what it placed from `base` on.
size_t place(std::vector<Placement*> order, size_t base) {
  std::stable_sort(order.begin(), order.end(),
                   [](const Placement* a, const Placement* b) { return a->bytes > b->bytes; });
  std::vector<const Placement*> placed;
  size_t end = 0;
  for (Placement* buffer : order) {
    buffer->offset = first_gap(placed, *buffer);
    end = std::max(end, buffer->offset + buffer->bytes);
    placed.insert(
        std::upper_bound(placed.begin(), placed.end(), buffer,
                         [](const auto* a, const auto* b) { return a->offset < b->offset; }),
        buffer);
  }
  for (Placement* buffer : order) buffer->offset += base;
  return base + end;
}

}  // namespace

AttentionNodes attention_nodes(const Graph& graph, size_t context) {
  // The node before `node` that wrote its first input.
  const auto writer = [&](size_t node) {
    const int site = graph.nodes[node].in.at(0);
    while (graph.nodes[--node].out != site) {
    }
    return node;
  };
  AttentionNodes nodes;
  nodes.context = context;
  nodes.softmax = writer(context);
  nodes.mask = writer(nodes.softmax);
  nodes.scores = writer(nodes.mask);
  return nodes;
}

Plan make_plan(const Graph& graph, const PlanSize& size) {
  Plan plan;
  plan.sites.resize(graph.sites.size());
  set_lifetimes(graph, plan);
  std::vector<Placement*> activations, scores;
  for (size_t i = 0; i < graph.sites.size(); ++i) {
    Placement& buffer = plan.sites[i];
    buffer.bytes = buffer_bytes(graph, graph.sites[i], size);
    if (buffer.bytes == 0) continue;
    if (is_cache(graph.sites[i])) {
      buffer.offset = plan.cache_bytes;
      buffer.first = 0;
      buffer.last = static_cast<int>(graph.nodes.size());
      plan.cache_bytes += buffer.bytes;
    } else {
      (graph.sites[i].role == Role::kScores ? scores : activations).push_back(&buffer);
    }
  }
  const size_t caches = plan.cache_bytes * static_cast<size_t>(size.sequences);
  plan.scratch_offset = place(std::move(activations), caches);
  plan.arena_bytes = plan.scratch_offset + align64(size.scratch_bytes);
  plan.trace_scratch_offset = place(std::move(scores), 0);
  plan.trace_bytes = plan.trace_scratch_offset + align64(size.trace_scratch_bytes);
  return plan;
}

}  // namespace qnpu
