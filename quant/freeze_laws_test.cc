// Scales are moved to where the NPU's compiler can only come to our law.
#include "quant/freeze_laws.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/laws.h"
#include "quant/random.h"
#include "quant/ranges.h"
#include "quant/test_models.h"

namespace qnpu {
namespace {

// Every site with a scale of its own gets a random one.
Graph graph_with_random_scales(uint64_t seed) {
  Graph graph = build_graph(load_config(tiny_model_folder("tiny-llama") / "config.json"), Recipe{});
  SplitMix64 random(seed);
  for (Site& site : graph.sites) {
    if (site.role == Role::kWeight) continue;
    site.qparams.scale = {static_cast<float>(1e-4 * (1.0 + random.uniform()))};
    site.qparams.zero_point = {0};
  }
  apply_ties(graph);
  return graph;
}

TEST(FreezeLaws, MultipliersOfSumsAreNoTies) {
  int moved = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Graph graph = graph_with_random_scales(seed);
    const Graph before = graph;
    snap_sums(graph);
    for (const Node& node : graph.nodes) {
      if (node.op != Op::kAdd) continue;
      const double out = scale_of(graph, node.out);
      if (scale_of(graph, node.in[0]) == out || scale_of(graph, node.in[1]) == out) continue;
      const double was = scale_of(before, node.out);
      EXPECT_NEAR(out / was, 1.0, 2 * 0x1p-12);
      moved += out != was ? 1 : 0;
      const AddLaw law = make_add16(scale_of(graph, node.in[0]), scale_of(graph, node.in[1]), out);
      for (const int in : node.in) {
        const double m = std::ldexp(scale_of(graph, in) / out, law.shift);
        EXPECT_GT(std::fabs(m - std::floor(m) - 0.5), 0x1p-22 * m) << node.name;
      }
    }
  }
  EXPECT_GT(moved, 0);
}

TEST(FreezeLaws, ProductsOfAttentionHaveTwelveBitsInSinglePrecision) {
  int exact = 0, products = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Graph graph = graph_with_random_scales(seed);
    for (Site& site : graph.sites) {
      if (site.name.ends_with("scores.out")) site.qparams.scale[0] = 1e-6f;
      if (site.name.ends_with("context.out")) site.qparams.scale[0] = 1e-6f;
    }
    apply_ties(graph);
    snap_attention_products(graph);
    for (const Node& node : graph.nodes) {
      if (node.op != Op::kScores && node.op != Op::kContext) continue;
      const auto scale = [&](int site) { return graph.site(site).qparams.scale[0]; };
      const float m = scale(node.in[0]) * scale(node.in[1]) / scale(node.out);
      ++products;
      exact += snap_multiplier(m) == m ? 1 : 0;
    }
  }
  EXPECT_GT(exact, 0.99 * products);
}

}  // namespace
}  // namespace qnpu
