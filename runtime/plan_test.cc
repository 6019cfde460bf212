#include "runtime/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "runtime/testing/random_artifact.h"

namespace qnpu {
namespace {

Graph tiny_graph(const std::string& architecture, const std::string& recipe) {
  const auto file = std::filesystem::path(QNPU_SOURCE_DIR) / "recipes" / (recipe + ".json");
  return build_graph(testing::tiny_config(architecture, {.num_layers = 5}), load_recipe(file));
}

bool alive_together(const Placement& a, const Placement& b) {
  return a.first <= b.last && b.first <= a.last;
}
bool overlap(const Placement& a, const Placement& b) {
  return a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}

class PlanTest : public ::testing::TestWithParam<std::tuple<const char*, const char*, int>> {};

TEST_P(PlanTest, BuffersAliveTogetherNeverOverlap) {
  const auto [architecture, recipe, max_rows] = GetParam();
  const Graph graph = tiny_graph(architecture, recipe);
  const Plan plan = make_plan(graph, {.capacity = 192,
                                      .max_rows = max_rows,
                                      .sequences = 2,
                                      .scratch_bytes = 1000,
                                      .trace_scratch_bytes = 500});
  int compared = 0;
  for (size_t i = 0; i < plan.sites.size(); ++i) {
    const Placement& a = plan.sites[i];
    if (a.bytes == 0) continue;
    EXPECT_EQ(a.offset % 64, 0u) << graph.sites[i].name;
    const bool traced = graph.sites[i].role == Role::kScores;
    EXPECT_LE(a.offset + a.bytes, traced ? plan.trace_scratch_offset : plan.scratch_offset)
        << graph.sites[i].name;
    for (size_t j = 0; j < i; ++j) {
      const Placement& b = plan.sites[j];
      if (b.bytes == 0 || !alive_together(a, b)) continue;
      if (traced != (graph.sites[j].role == Role::kScores)) continue;  // in another arena
      EXPECT_FALSE(overlap(a, b)) << graph.sites[i].name << " and " << graph.sites[j].name;
      ++compared;
    }
  }
  EXPECT_GT(compared, 100);
  EXPECT_LE(plan.scratch_offset + 1000, plan.arena_bytes);
  EXPECT_LE(plan.trace_scratch_offset + 500, plan.trace_bytes);
}

// What a node reads was written before, is still there, and is not where the node writes.
TEST_P(PlanTest, InputsLiveUntilTheirLastReader) {
  const auto [architecture, recipe, max_rows] = GetParam();
  const Graph graph = tiny_graph(architecture, recipe);
  const Plan plan = make_plan(graph, {192, max_rows});
  for (int i = 0; i < static_cast<int>(graph.nodes.size()); ++i) {
    const Node& node = graph.nodes[i];
    for (const int in : node.in) {
      EXPECT_LE(plan.sites[in].first, i) << node.name;
      EXPECT_GE(plan.sites[in].last, i) << node.name;
      const bool one_arena =
          (graph.site(in).role == Role::kScores) == (graph.site(node.out).role == Role::kScores);
      EXPECT_FALSE(one_arena && overlap(plan.sites[in], plan.sites[node.out])) << node.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Graphs, PlanTest,
                         ::testing::Combine(::testing::Values("llama", "qwen2", "qwen3"),
                                            ::testing::Values("w4a8kv8", "w4a16kv8"),
                                            ::testing::Values(1, 5, 128)));

// Attention as a whole reads the query and the keys where its last node stands.
TEST_P(PlanTest, QueriesLiveUntilAttentionIsDone) {
  const auto [architecture, recipe, max_rows] = GetParam();
  const Graph graph = tiny_graph(architecture, recipe);
  const Plan plan = make_plan(graph, {192, max_rows});
  int found = 0;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (graph.nodes[i].op != Op::kContext) continue;
    const AttentionNodes nodes = attention_nodes(graph, i);
    EXPECT_EQ(graph.nodes[nodes.scores].op, Op::kScores);
    EXPECT_EQ(graph.nodes[nodes.mask].op, Op::kMask);
    EXPECT_EQ(graph.nodes[nodes.softmax].op, Op::kSoftmax);
    EXPECT_EQ(graph.nodes[nodes.scores].layer, graph.nodes[i].layer);
    const Placement& query = plan.sites[graph.nodes[nodes.scores].in[0]];
    EXPECT_GE(query.last, static_cast<int>(i));
    EXPECT_FALSE(overlap(query, plan.sites[graph.nodes[i].out]));
    ++found;
  }
  EXPECT_EQ(found, 5);
}

// The scores are not in the arena: it grows with the context as the caches and a strip do.
TEST(Plan, ArenaGrowsWithTheContextNotItsSquare) {
  const Graph graph = tiny_graph("llama", "w4a8kv8");
  const auto bytes = [&](int size) { return make_plan(graph, {size, size}).arena_bytes; };
  EXPECT_LT(bytes(8192), 2 * bytes(4096) + 4096);
}

// Buffers are shared: more layers need more cache but no more room for activations.
TEST(Plan, ActivationsDoNotGrowWithLayers) {
  const auto activations = [](int layers) {
    const Graph graph =
        build_graph(testing::tiny_config("llama", {.num_layers = layers}), Recipe{});
    const Plan plan = make_plan(graph, {192, 32});
    return plan.scratch_offset - plan.cache_bytes;
  };
  EXPECT_EQ(activations(2), activations(9));
}

TEST(Plan, FourBitActivationsTakeAByteEach) {
  Recipe recipe;
  recipe.rules.push_back({.match = "layers.*.o_proj.in", .bitwidth = 4});
  const Graph graph = build_graph(testing::tiny_config("llama"), recipe);
  const Plan plan = make_plan(graph, {192, 16});
  // 6 heads of 16.
  const int site = graph.find_site("layers.1.self_attn.o_proj.in");
  EXPECT_EQ(plan.sites[static_cast<size_t>(site)].bytes, 16u * 6 * 16);
}

TEST(Plan, CachesHoldEveryPosition) {
  const Graph graph = tiny_graph("llama", "w4a8kv8");
  const Plan plan = make_plan(graph, {192, 16});
  // 5 layers, K and V, 2 KV heads of 16.
  EXPECT_EQ(plan.cache_bytes, 5u * 2 * 192 * 2 * 16);
  // In panels a head's values take 32 bytes a position.
  const Plan panels = make_plan(graph, {.capacity = 192, .max_rows = 16, .cache_panels = true});
  EXPECT_EQ(panels.cache_bytes, 5u * 192 * 2 * (16 + 32));
}

}  // namespace
}  // namespace qnpu
