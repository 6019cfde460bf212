#include "quant/freeze_laws.h"

#include <algorithm>
#include <cmath>

#include "base/status.h"
#include "model/laws.h"
#include "quant/freeze_linear.h"
#include "quant/ranges.h"

namespace qnpu {
namespace {

bool is_attention_product(const Node& node) {
  return node.op == Op::kScores || node.op == Op::kContext;
}

// Scales this near are made equal: the NPU's compiler may take them for equal or not.
constexpr double kSameScale = 0x1p-12;

// The compiler was seen to round a multiplier of 28583.504 down: some units of single precision
// off.
constexpr double kFromTie = 0x1p-21;  // of the multiplier
constexpr float kAside = 1.0f + 0x1p-18f;
constexpr int kMostSteps = 64;

bool is_near_tie(const Graph& graph, const Node& node, AddLaw law) {
  const double out = scale_of(graph, node.out);
  return std::any_of(node.in.begin(), node.in.end(), [&](int in) {
    const double m = std::ldexp(scale_of(graph, in) / out, law.shift);
    return std::fabs(m - std::floor(m) - 0.5) < kFromTie * m;
  });
}

// An output scale that is one of the inputs' stays.
void move_aside(Graph& graph, const Node& node) {
  for (const int in : node.in) {
    if (scale_of(graph, in) == scale_of(graph, node.out)) return;
  }
  const auto law = [&] {
    return make_add16(scale_of(graph, node.in[0]), scale_of(graph, node.in[1]),
                      scale_of(graph, node.out));
  };
  const auto root = static_cast<size_t>(tie_root(graph, node.out).site);
  for (int i = 0; i < kMostSteps && is_near_tie(graph, node, law()); ++i) {
    graph.sites[root].qparams.scale[0] *= kAside;
    apply_ties(graph);
  }
}

struct SnappedProduct {
  double multiplier;  // of 12 significant bits
  float out_scale;
};

// The compiler keeps all 24 bits of its ratio, formed in single precision as (a * b) / out: results
// are exact only if it *is* a number of 12 bits. One of the nearest is, for one of the nearest
// output scales.
SnappedProduct snap_product(float a, float b, double out) {
  const double product = static_cast<double>(a) * b;
  const auto near_ones = nearest_multipliers(product / out);
  for (const double near : near_ones) {
    const auto nearest = static_cast<float>(product / near);
    for (const int units : {0, 1, -1, 2, -2, 3, -3, 4, -4}) {  // of single precision
      const float scale = nearest * (1.0f + static_cast<float>(units) * 0x1p-23f);
      if (a * b / scale == near) return {near, scale};
    }
  }
  return {near_ones[0], static_cast<float>(product / near_ones[0])};
}

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
    try {
      move_aside(graph, node);
    } catch (const Error& error) {
      fail("node '{}': {}", node.name, error.what());
    }
  }
  apply_ties(graph);
}

void snap_attention_products(Graph& graph) {
  for (Node& node : graph.nodes) {
    if (!is_attention_product(node)) continue;
    const auto input = [&](int i) { return graph.site(node.in[i]).qparams.scale[0]; };
    const SnappedProduct snapped = snap_product(input(0), input(1), scale_of(graph, node.out));
    const TieRoot root = tie_root(graph, node.out);
    graph.sites[static_cast<size_t>(root.site)].qparams.scale[0] =
        static_cast<float>(snapped.out_scale / root.ratio);
    try {
      node.law = make_requant16(snapped.multiplier);
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
