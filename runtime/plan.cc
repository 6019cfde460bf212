#include "runtime/plan.h"

#include <algorithm>

namespace qnpu {
namespace {

size_t align64(size_t bytes) { return (bytes + 63) / 64 * 64; }

size_t buffer_bytes(const Graph& graph, const Site& site, size_t capacity, size_t max_rows) {
  const auto cols = static_cast<size_t>(site.cols);
  const auto width = static_cast<size_t>(activation_bytes(site.qparams.dtype));
  switch (site.role) {
    case Role::kActivation:
      return align64(max_rows * cols * width);
    case Role::kScores:
      return align64(static_cast<size_t>(graph.config.num_heads) * max_rows * capacity * width);
    case Role::kKCache:
    case Role::kVCache:
      return align64(static_cast<size_t>(graph.config.num_kv_heads) *
                     static_cast<size_t>(graph.config.head_dim) * capacity * width);
    default:
      return 0;
  }
}

bool is_cache(const Site& site) { return site.role == Role::kKCache || site.role == Role::kVCache; }

// Caches live always; the last node's output until the caller has read it.
void set_lifetimes(const Graph& graph, Plan& plan) {
  const int end = static_cast<int>(graph.nodes.size());
  for (int i = 0; i < end; ++i) {
    const Node& node = graph.nodes[static_cast<size_t>(i)];
    Placement& out = plan.sites[static_cast<size_t>(node.out)];
    out.first = i;
    out.last = i;
    for (const int in : node.in) plan.sites[static_cast<size_t>(in)].last = i;
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
size_t place_activations(const Graph& graph, size_t base, Plan& plan) {
  std::vector<Placement*> order;
  for (size_t i = 0; i < plan.sites.size(); ++i) {
    if (plan.sites[i].bytes > 0 && !is_cache(graph.sites[i])) order.push_back(&plan.sites[i]);
  }
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

Plan make_plan(const Graph& graph, int capacity, int max_rows, size_t scratch_bytes) {
  Plan plan;
  plan.sites.resize(graph.sites.size());
  set_lifetimes(graph, plan);
  for (size_t i = 0; i < graph.sites.size(); ++i) {
    Placement& buffer = plan.sites[i];
    buffer.bytes = buffer_bytes(graph, graph.sites[i], static_cast<size_t>(capacity),
                                static_cast<size_t>(max_rows));
    if (is_cache(graph.sites[i])) {
      buffer.offset = plan.cache_bytes;
      buffer.first = 0;
      buffer.last = static_cast<int>(graph.nodes.size());
      plan.cache_bytes += buffer.bytes;
    }
  }
  plan.scratch_offset = place_activations(graph, plan.cache_bytes, plan);
  plan.scratch_bytes = align64(scratch_bytes);
  plan.arena_bytes = plan.scratch_offset + plan.scratch_bytes;
  return plan;
}

}  // namespace qnpu
