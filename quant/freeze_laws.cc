#include "quant/freeze_laws.h"

#include <cmath>

#include "base/status.h"
#include "quant/ranges.h"

namespace qnpu {
namespace {

bool is_attention_product(const Node& node) {
  return node.op == Op::kScores || node.op == Op::kContext;
}

// The mask adds 0 or -100 in steps of 100/65535 (htp-facts rule 9); visible positions add 0.
constexpr double kMaskScale = 100.0 / 65535;

// Scales this near are made equal: the NPU's compiler may take them for equal or not.
constexpr double kSameScale = 0x1p-12;

Law law_of(const Graph& graph, const Node& node) {
  const auto in = [&](size_t i) { return scale_of(graph, node.in[i]); };
  const double out = scale_of(graph, node.out);
  switch (node.op) {
    case Op::kRmsNorm:
      return make_rmsnorm(in(0), scale_of(graph, node.weight), out, graph.config.rms_norm_eps,
                          graph.site(node.out).cols / node.heads);
    case Op::kRopeMul:
      return make_mul16(in(0), scale_of(graph, node.weight), out);
    case Op::kAdd:
      return make_add16(in(0), in(1), out);
    case Op::kMask:
      return make_add16(in(0), kMaskScale, out);
    case Op::kMul:
      return bitwidth(graph.site(node.out).qparams.dtype) == 8 ? make_mul8(in(0), in(1), out)
                                                               : make_mul16(in(0), in(1), out);
    default:
      return node.law;  // those without one, and those set elsewhere
  }
}

}  // namespace

double scale_of(const Graph& graph, int site) {
  const Site& s = graph.site(site);
  if (s.qparams.scale.empty()) fail("site '{}' has no scale yet", s.name);
  return s.qparams.scale[0];
}

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
    try {
      node.law = law_of(graph, node);
    } catch (const Error& error) {
      fail("node '{}': {}", node.name, error.what());
    }
  }
}

}  // namespace qnpu
