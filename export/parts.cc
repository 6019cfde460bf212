#include "export/parts.h"

#include <fmt/format.h>

#include <set>

#include "base/status.h"

namespace qnpu {
namespace {

constexpr int kMostParts = 99;  // names have two digits, and their order is that of the parts

// Layers [0, end) are in this part or before it.
int end_layer(Part part, const Graph& graph) {
  return (part.index + 1) * graph.config.num_layers / part.count;
}
int begin_layer(Part part, const Graph& graph) {
  return part.index * graph.config.num_layers / part.count;
}

}  // namespace

std::string part_name(const std::string& graph, Part part) {
  return part.count == 1 ? graph : fmt::format("{}.part{:02}", graph, part.index + 1);
}

bool is_in(Part part, const Graph& graph, const Node& node) {
  if (node.op == Op::kEmbedding) return part.first();
  if (node.layer < 0) return part.last();
  return node.layer >= begin_layer(part, graph) && node.layer < end_layer(part, graph);
}

int residual_into(Part part, const Graph& graph) {
  int site = -1;
  for (const Node& node : graph.nodes) {
    if (node.layer >= 0 && node.layer < begin_layer(part, graph)) site = node.out;
  }
  return site;
}

int64_t part_bytes(const Artifact& artifact, Part part) {
  std::set<std::string> counted;
  int64_t bytes = 0;
  for (const Node& node : artifact.graph.nodes) {
    if (node.weight < 0 || !is_in(part, artifact.graph, node)) continue;
    const Site& site = artifact.graph.site(node.weight);
    if (!counted.insert(site.name).second) continue;
    const int64_t stored = static_cast<int64_t>(artifact.tensors.at(site.name).bytes);
    bytes += site.spec.block_size > 0 ? stored / 2 : stored;  // products of 4-bit integers
  }
  return bytes;
}

void choose_parts(const Artifact& artifact, Part& part) {
  if (part.count == 0) part.count = parts_needed(artifact);
  if (part.count > artifact.graph.config.num_layers) {
    fail("--split {}: this model has {} layers", part.count, artifact.graph.config.num_layers);
  }
  if (part.count > kMostParts) {
    fail("{} parts: at most {} have names in the order of the parts; give a smaller --split",
         part.count, kMostParts);
  }
}

int parts_needed(const Artifact& artifact, int64_t most) {
  for (int count = 1; count <= artifact.graph.config.num_layers; ++count) {
    int64_t largest = 0;
    for (int i = 0; i < count; ++i) largest = std::max(largest, part_bytes(artifact, {i, count}));
    if (largest <= most) return count;
  }
  fail(
      "a part of one layer, with embedding or head, has more than {} bytes, which no context "
      "binary can hold; quantize with fewer bits",
      most);
}

}  // namespace qnpu
