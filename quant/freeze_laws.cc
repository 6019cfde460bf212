#include "quant/freeze_laws.h"

#include <cmath>

#include "base/status.h"
#include "model/laws.h"
#include "quant/ranges.h"

namespace qnpu {
namespace {

bool is_attention_product(const Node& node) {
  return node.op == Op::kScores || node.op == Op::kContext;
}

// Scales this near are made equal: the NPU's compiler may take them for equal or not.
constexpr double kSameScale = 0x1p-12;

}  // namespace

void snap_sums(Graph& graph) {
  for (const Node& node : graph.nodes) {
    if (node.op != Op::kAdd) continue;
    for (const int in : node.in) {
      Site& out = graph.sites[static_cast<size_t>(node.out)];
      const double ratio = scale_of(graph, in) / scale_of(graph, node.out);
      if (std::fabs(ratio - 1.0) < kSameScale)
        out.qparams.scale[0] = graph.site(in).qparams.scale[0];
    }
  }
  apply_ties(graph);
}

void snap_attention_products(Graph& graph) {
  for (Node& node : graph.nodes) {
    if (!is_attention_product(node)) continue;
    const double product = scale_of(graph, node.in[0]) * scale_of(graph, node.in[1]);
    const double m = snap_multiplier(product / scale_of(graph, node.out));
    const TieRoot root = tie_root(graph, node.out);
    graph.sites[static_cast<size_t>(root.site)].qparams.scale[0] =
        static_cast<float>(product / m / root.ratio);
    try {
      node.law = make_requant16(m);
    } catch (const Error& error) {
      fail("node '{}': {}", node.name, error.what());
    }
  }
  apply_ties(graph);
}

void set_laws(Graph& graph) {
  for (Node& node : graph.nodes) {
    if (is_attention_product(node)) continue;  // of the snapped multiplier
    try {
      node.law = law_from_scales(graph, node);
    } catch (const Error& error) {
      fail("node '{}': {}", node.name, error.what());
    }
  }
}

}  // namespace qnpu
