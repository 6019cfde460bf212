#include "runtime/kv_cache.h"

#include <algorithm>
#include <vector>

namespace qnpu {
namespace {

int8_t* cache(const BoundGraph& bound, const BoundNode& node, int sequence) {
  return static_cast<int8_t*>(node.out) + sequence * bound.cache_stride;
}

}  // namespace

void write_prefix(const Artifact& artifact, const BoundGraph& bound, int sequence) {
  AttentionShape shape = bound.attention;
  shape.tokens = artifact.graph.prefix_length();
  if (shape.tokens == 0) return;
  for (size_t i = 0; i < bound.nodes.size(); ++i) {
    const BoundNode& node = bound.nodes[i];
    if (node.op != Op::kAppend) continue;
    const Site& site = artifact.graph.site(artifact.graph.nodes[i].out);
    const int8_t* rows = artifact.tensors.at(site.name + ".prefix").as<int8_t>().data();
    (node.keys ? append_keys : append_values)(rows, shape, cache(bound, node, sequence));
  }
}

void copy_caches(const BoundGraph& bound, int from, int to, int positions) {
  for (const BoundNode& node : bound.nodes) {
    if (node.op != Op::kAppend) continue;
    (node.keys ? copy_keys : copy_values)(cache(bound, node, from), bound.attention, positions,
                                          cache(bound, node, to));
  }
}

void set_cache_layout(BoundGraph& bound, bool panels, int positions) {
  const AttentionShape from = bound.attention;
  if (from.panels == panels) return;
  AttentionShape to = from;
  to.panels = panels;
  std::vector<int8_t> old;
  // Before anything is changed: it may fail.
  old.reserve(std::max(key_cache_bytes(from), value_cache_bytes(from)));
  for (const BoundNode& node : bound.nodes) {
    if (node.op != Op::kAppend) continue;
    int8_t* data = cache(bound, node, 0);
    const auto offset = node.keys ? key_offset : value_offset;
    old.assign(data, data + (node.keys ? key_cache_bytes(from) : value_cache_bytes(from)));
    for (int64_t g = 0; g < from.kv_heads; ++g) {
      for (int64_t c = 0; c < positions; ++c) {
        for (int64_t d = 0; d < from.head_dim; ++d) {
          data[offset(to, g, c, d)] = old[static_cast<size_t>(offset(from, g, c, d))];
        }
      }
    }
  }
  bound.attention.panels = panels;
}

}  // namespace qnpu
