#include "npu/cost.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "io/test_folder.h"
#include "npu/placement.h"
#include "npu/test_graphs.h"

namespace qnpu {
namespace {

using testing::HasSubstr;

// Rates at which times are round numbers.
constexpr CostParameters kUnit = {.tera_products = 1e-6,  // 10^6 products per second
                                  .speedup_8 = 2,
                                  .block_slowdown = 3,
                                  .memory_share = 0.5,
                                  .overhead_us = 1000,
                                  .watts = 10};

Target unit_target() {
  Target target = target_named("sm8750");
  target.memory_gb_per_s = 2e-3;  // half of it is reached: 10^6 bytes per second
  target.npu_speed = 1;
  return target;
}

const NodeWork& work_of(const std::vector<NodeWork>& work, const Graph& graph,
                        const std::string& node) {
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (graph.nodes[i].name == node) return work[i];
  }
  throw Error(node);
}

TEST(Cost, WorkOfALinearByHand) {
  const Graph graph = tiny_graph("w4a8kv8");
  const auto work = node_work(graph, 8, 64, false);
  ASSERT_EQ(work.size(), graph.nodes.size());
  const NodeWork& up = work_of(work, graph, "layers.0.mlp.up_proj");
  EXPECT_EQ(up.products, 8 * 160 * 64);
  EXPECT_EQ(up.memory_bytes, 160 * 64 / 2 + 4 * 160);
  EXPECT_EQ(up.operand_bytes, 8 * 64 + 8 * 160);
  EXPECT_FALSE(up.wide);
  EXPECT_STREQ(kind_of(up), "linear");
}

TEST(Cost, WorkOfAttentionIsThatOfTheWholeContext) {
  const Graph graph = tiny_graph("w4a8kv8");
  const auto work = node_work(graph, 8, 64, false);
  const NodeWork& scores = work_of(work, graph, "layers.1.self_attn.scores");
  EXPECT_EQ(scores.products, 8 * 64 * 4 * 16);
  EXPECT_TRUE(scores.wide);
  EXPECT_EQ(scores.memory_bytes, 0);
  const NodeWork& append = work_of(work, graph, "layers.1.self_attn.k_cache");
  EXPECT_EQ(append.memory_bytes, 64 * 32);
  EXPECT_STREQ(kind_of(append), "cache");
  EXPECT_STREQ(kind_of(scores), "attention");
}

TEST(Cost, TheHeadComputesTheLastRowOrAll) {
  const Graph graph = tiny_graph("w4a8kv8");
  const auto last = node_work(graph, 8, 64, false), all = node_work(graph, 8, 64, true);
  EXPECT_EQ(work_of(last, graph, "lm_head").products, 320 * 64);
  EXPECT_EQ(work_of(all, graph, "lm_head").products, 8 * 320 * 64);
  EXPECT_EQ(work_of(last, graph, "lm_head").memory_bytes,
            work_of(all, graph, "lm_head").memory_bytes);
  EXPECT_STREQ(kind_of(work_of(all, graph, "norm")), "head");
}

TEST(Cost, ANodeTakesTheLongerOfProductsAndMemory) {
  NodeWork work;
  const Target target = unit_target();
  EXPECT_DOUBLE_EQ(node_seconds(work, target, kUnit), 1e-3);
  work.products = 4e6;
  EXPECT_DOUBLE_EQ(node_seconds(work, target, kUnit), 2 + 1e-3);  // 8 bits: twice the rate
  work.wide = true;
  EXPECT_DOUBLE_EQ(node_seconds(work, target, kUnit), 4 + 1e-3);
  work.blocks = true;
  EXPECT_DOUBLE_EQ(node_seconds(work, target, kUnit), 12 + 1e-3);
  work.memory_bytes = 20e6;
  EXPECT_DOUBLE_EQ(node_seconds(work, target, kUnit), 20 + 1e-3);
}

TEST(Cost, AFasterTargetIsFasterWhereItIs) {
  Target fast = unit_target();
  fast.npu_speed = 4;
  NodeWork products, memory;
  products.products = memory.memory_bytes = 8e6;
  EXPECT_DOUBLE_EQ(node_seconds(products, fast, kUnit), 1 + 1e-3);
  EXPECT_DOUBLE_EQ(node_seconds(memory, fast, kUnit), 8 + 1e-3);
}

TEST(Cost, AnEstimateIsTheSumOfItsNodes) {
  const Graph graph = tiny_graph("w8a8kv8");
  const Target target = unit_target();
  const CostEstimate e = estimate(graph, target, kUnit, 8, 64);
  double seconds = 0, moved = 0, shares = 0;
  for (const NodeWork& w : node_work(graph, 8, 64, false)) {
    seconds += node_seconds(w, target, kUnit);
    moved += w.memory_bytes;
  }
  for (const auto& [kind, share] : e.shares) shares += share;
  EXPECT_DOUBLE_EQ(e.seconds, seconds);
  EXPECT_DOUBLE_EQ(e.joules, 10 * seconds);
  EXPECT_EQ(e.moved_bytes, static_cast<int64_t>(moved));
  EXPECT_NEAR(shares, 1, 1e-12);
  EXPECT_EQ(e.weight_bytes + e.cache_bytes, graph_memory(graph, 64).total());
  EXPECT_EQ(to_json(e).at("tokens_per_second").get<double>(), 8 / e.seconds);
}

TEST(Cost, DecodingWaitsForWeightsAndPrefillForProducts) {
  const Target target = target_named("sm8750");
  const CostParameters p = {.tera_products = 4, .memory_share = 0.6, .overhead_us = 0};
  const auto seconds = [&](const char* recipe, int rows) {
    return estimate(tiny_graph(recipe), target, p, rows, 2048).seconds;
  };
  EXPECT_LT(seconds("w4a8kv8", 1), seconds("w8a8kv8", 1));
  EXPECT_DOUBLE_EQ(seconds("w4a8kv8", 1024), seconds("w8a8kv8", 1024));
  EXPECT_GT(seconds("w4a8kv8", 1024), seconds("w4a8kv8", 512));
}

TEST(Cost, OperandsBeyondTheTightlyCoupledMemoryAreCounted) {
  const Graph graph = tiny_graph("w8a8kv8");
  Target target = unit_target();
  EXPECT_EQ(estimate(graph, target, kUnit, 8, 64).nodes_over_tcm, 0);
  // Scores, masked scores, probabilities of 4 heads: 2 * 1024 * 4 * 1024 bytes each, in and out.
  EXPECT_EQ(estimate(graph, target, kUnit, 1023, 1024).nodes_over_tcm, 2 * 4);
}

TEST(Cost, WhatCannotBeEstimatedIsASentence) {
  const Graph graph = tiny_graph("w8a8kv8");
  const auto error = [&](const char* target, int rows, int context) {
    return error_of([&] { estimate(graph, target_named(target), kUnit, rows, context); });
  };
  EXPECT_THAT(error("sm8750", 0, 64), HasSubstr("0 rows"));
  EXPECT_THAT(error("sm8750", -1, 64), HasSubstr("-1 rows"));
  EXPECT_THAT(error("sm8750", 1, 0), HasSubstr("a context of 0"));
  EXPECT_THAT(error("sm8750", 65, 64), HasSubstr("do not fit into a context of 64"));
  EXPECT_THAT(error("sa8775", 1, 64), HasSubstr("no public figures are known of SA8775"));
  Graph prefixed = tiny_graph("w8a8kv8");
  prefixed.prefix_tokens = {1, 2};
  EXPECT_THAT(error_of([&] { estimate(prefixed, target_named("sm8750"), kUnit, 63, 64); }),
              HasSubstr("a prefix of 2"));
}

}  // namespace
}  // namespace qnpu
