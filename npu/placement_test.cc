#include "npu/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "npu/test_graphs.h"

namespace qnpu {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;

auto problem(const std::string& node, const std::string& site, const std::string& words) {
  return AllOf(Field(&Misplacement::node, node), Field(&Misplacement::site, site),
               Field(&Misplacement::reason, HasSubstr(words)));
}

TEST(Placement, EveryTargetPlacesTheRecipesOfEightAndSixteenBits) {
  for (const char* target : {"sm8550", "sm8650", "sm8750", "sm8850", "sa8775", "sa8797"}) {
    for (const char* recipe : {"default", "w4a8kv8", "w4a16kv8", "w8a8kv8",
                               "executorch-w4a16-block", "quantnpu-w4a8-down10"}) {
      EXPECT_THAT(misplaced(tiny_graph(recipe), target_named(target), 1024), IsEmpty())
          << target << " " << recipe;
    }
  }
}

// What the compiler was measured to turn into fp16 without a word.
TEST(Placement, ALinearOfTwoWidthsIsRefused) {
  Graph graph = tiny_graph("w4a8kv8");
  site_named(graph, "layers.1.mlp.gate_proj.out").qparams.dtype = DType::kS16;
  // SiLU reads it too, and writes 8 bits.
  EXPECT_THAT(
      misplaced(graph, target_named("sm8750"), 1024),
      ElementsAre(problem("layers.1.mlp.gate_proj", "layers.1.mlp.gate_proj.out",
                          "linear of 8>16 bits, which would become fp16; SM8750 has 8>8"),
                  problem("layers.1.mlp.silu", "layers.1.mlp.gate_proj.out", "silu of 16>8 bits")));
}

TEST(Placement, AnAddOfTwoWidthsNamesTheOperandThatDiffers) {
  Graph graph = tiny_graph("w4a8kv8");
  site_named(graph, "layers.0.mlp.up_proj.out").qparams.dtype = DType::kS16;
  EXPECT_THAT(misplaced(graph, target_named("sm8750"), 1024),
              ElementsAre(problem("layers.0.mlp.up_proj", "layers.0.mlp.up_proj.out", "8>16"),
                          problem("layers.0.mlp.mul", "layers.0.mlp.up_proj.out", "8x16>8")));
}

TEST(Placement, InputsOfFourBitsAreRefused) {
  const auto found = misplaced(tiny_graph("default-w4a4"), target_named("sm8650"), 1024);
  ASSERT_FALSE(found.empty());
  EXPECT_THAT(found[0], problem("layers.0.self_attn.qkv_proj.in", "layers.0.self_attn.qkv_proj.in",
                                "convert of 16>4 bits"));
  EXPECT_THAT(found[1], problem("layers.0.self_attn.q_proj", "layers.0.self_attn.qkv_proj.in",
                                "linear of 4>8 bits"));
}

TEST(Placement, ProductsWantACacheOfEightBitsWithoutAZeroPoint) {
  Graph graph = tiny_graph("w8a8kv8");
  site_named(graph, "layers.0.self_attn.k_cache").spec.symmetric = false;
  site_named(graph, "layers.1.self_attn.v_cache").qparams.dtype = DType::kS16;
  EXPECT_THAT(
      misplaced(graph, target_named("sm8750"), 1024),
      ElementsAre(
          problem("layers.0.self_attn.scores", "layers.0.self_attn.k_cache", "must be symmetric"),
          problem("layers.1.self_attn.v_cache", "layers.1.self_attn.v_cache", "append of 8>16"),
          problem("layers.1.self_attn.context", "layers.1.self_attn.v_cache",
                  "context of 16x16>16")));
}

TEST(Placement, WideInputsOfLinearsAreSymmetric) {
  Graph graph = tiny_graph("w4a16kv8");
  site_named(graph, "layers.0.mlp.down_proj.in").spec.symmetric = false;
  EXPECT_THAT(misplaced(graph, target_named("sm8750"), 1024),
              ElementsAre(problem("layers.0.mlp.down_proj", "layers.0.mlp.down_proj.in",
                                  "16-bit input of a linear")));
  graph = tiny_graph("w8a8kv8");
  site_named(graph, "layers.0.mlp.down_proj.in").spec.symmetric = false;  // 8 bits: any zero point
  EXPECT_THAT(misplaced(graph, target_named("sm8750"), 1024), IsEmpty());
}

TEST(Placement, WeightsOfOtherWidthsAndBlocksAreRefused) {
  Graph graph = tiny_graph("w8a8kv8");
  site_named(graph, "layers.0.mlp.up_proj.weight").spec.bitwidth = 2;
  site_named(graph, "layers.1.mlp.up_proj.weight").spec = {.bitwidth = 4, .block_size = 16};
  EXPECT_THAT(misplaced(graph, target_named("sm8750"), 1024),
              ElementsAre(problem("layers.0.mlp.up_proj", "layers.0.mlp.up_proj.weight", "2 bits"),
                          problem("layers.1.mlp.up_proj", "layers.1.mlp.up_proj.weight",
                                  "blocks of 16; SM8750 has blocks of 32 or 64")));
}

TEST(Placement, AnOperationThatTheTargetDoesNotNameIsRefused) {
  Target target = target_named("sm8750");
  target.operations.erase("silu");
  EXPECT_THAT(misplaced(tiny_graph("w8a8kv8"), target, 1024),
              ElementsAre(problem("layers.0.mlp.silu", "layers.0.mlp.silu.out", "has no silu"),
                          problem("layers.1.mlp.silu", "layers.1.mlp.silu.out", "has no silu")));
}

// Counted by hand: 2 layers of q, o (64 x 64), k, v (32 x 64), gate, up, down (160 x 64) in bytes,
// the head of 320 x 64, scales of 4 bytes for each row, tables of 2 bytes.
TEST(Placement, MemoryOfTheGraph) {
  const GraphMemory m = graph_memory(tiny_graph("w8a8kv8"), 100);
  const int64_t layer = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 160 * 64;
  const int64_t rows = 2 * (2 * 64 + 2 * 32 + 2 * 160 + 64) + 320;
  const int64_t embedding = 320 * 64, norms = 5 * 64, rope = 2 * 100 * 8;
  EXPECT_EQ(m.weight_bytes, 2 * layer + 320 * 64 + 4 * rows + 2 * (embedding + norms + rope));
  EXPECT_EQ(m.cache_bytes, 2 * 2 * 100 * 32);
  const GraphMemory half = graph_memory(tiny_graph("w4a8kv8"), 100);  // the head keeps 8 bits
  EXPECT_EQ(half.weight_bytes, m.weight_bytes - layer);
  const GraphMemory blocks = graph_memory(tiny_graph("executorch-w4a16-block"), 100);
  EXPECT_EQ(blocks.weight_bytes, half.weight_bytes + 2 * layer / 32);
}

TEST(Placement, AGraphLargerThanASessionIsRefused) {
  const Target target = target_named("sm8750");
  const Graph graph = tiny_graph("w8a8kv8");
  const int context = 30'000'000;  // 128 bytes of caches and 32 of cos and sin for each
  const auto found = misplaced(graph, target, context);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_THAT(found[0], problem("", "", "one session of SM8750 maps 3500 MB"));
}

TEST(Placement, TheSentenceNamesTheFirstAndCountsAll) {
  const Target target = target_named("sm8750");
  EXPECT_THAT(placement_sentence(target, misplaced(tiny_graph("default-w4a4"), target, 1024)),
              AllOf(HasSubstr("SM8750 cannot place"), HasSubstr("layers.0.self_attn.qkv_proj.in"),
                    HasSubstr("; ...")));
  EXPECT_EQ(placement_sentence(target, {{"n", "s", "why"}}),
            "SM8750 cannot place 1 part of this graph in integers: site 's' of node 'n': why");
}

}  // namespace
}  // namespace qnpu
