#include "runtime/kv_cache.h"

#include <cstring>

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
  const int64_t width = int64_t{bound.attention.kv_heads} * bound.attention.head_dim;
  const auto count = static_cast<size_t>(positions);
  for (const BoundNode& node : bound.nodes) {
    if (node.op != Op::kAppend) continue;
    const int8_t* source = cache(bound, node, from);
    int8_t* target = cache(bound, node, to);
    if (node.keys) {
      std::memcpy(target, source, count * static_cast<size_t>(width));
      continue;
    }
    for (int64_t d = 0; d < width; ++d) {
      std::memcpy(target + d * bound.attention.context, source + d * bound.attention.context,
                  count);
    }
  }
}

}  // namespace qnpu
