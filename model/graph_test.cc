#include "model/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/status.h"
#include "model/test_config.h"

namespace qnpu {
namespace {

using nlohmann::json;
using testing::HasSubstr;

Recipe with_rules(const char* rules) {
  return recipe_from_json({{"name", "r"},
                           {"rotation", {{"r1", "hadamard"}, {"r2", "hadamard"}}},
                           {"rules", json::parse(rules)}},
                          "r.json");
}

std::vector<Recipe> all_recipes() {
  std::vector<Recipe> recipes;
  for (const auto& entry : std::filesystem::directory_iterator(QNPU_SOURCE_DIR "/recipes")) {
    recipes.push_back(load_recipe(entry.path()));
  }
  return recipes;
}

std::string error_of(const Recipe& recipe) {
  try {
    build_graph(tiny_config("llama"), recipe);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

// The NPU's rule: one width per node; only a Convert changes it, and the products with the cache
// take 16 x 8 bits.
void expect_legal_widths(const Graph& graph) {
  for (const Node& node : graph.nodes) {
    const int out = bitwidth(graph.site(node.out).qparams.dtype);
    for (size_t i = 0; i < node.in.size(); ++i) {
      const int in = bitwidth(graph.site(node.in[i]).qparams.dtype);
      if (node.op == Op::kConvert) {
        EXPECT_NE(in, out) << node.name;
        EXPECT_EQ(std::max(in, out), 16) << node.name;
      } else if (node.op == Op::kLinear) {
        EXPECT_EQ(std::max(in, 8), out) << node.name;
      } else if ((node.op == Op::kScores || node.op == Op::kContext) && i == 1) {
        EXPECT_EQ(in, 8) << node.name;
      } else {
        EXPECT_EQ(in, out) << node.name;
      }
    }
  }
}

// A Convert's two sites have scales 2^(difference of widths), whatever the chain of ties.
void expect_tied_converts(const Graph& graph) {
  for (const Node& node : graph.nodes) {
    if (node.op != Op::kConvert) continue;
    const TieRoot in = tie_root(graph, node.in[0]);
    const TieRoot out = tie_root(graph, node.out);
    EXPECT_EQ(in.site, out.site) << node.name;
    const int bits = bitwidth(graph.site(node.out).qparams.dtype);
    EXPECT_EQ(out.ratio / in.ratio, bits == 16  ? 1.0 / 256.0
                                    : bits == 8 ? 256.0
                                                : 4096.0)
        << node.name;
  }
}

TEST(Graph, EveryRecipeAndArchitectureIsLegal) {
  const auto recipes = all_recipes();
  ASSERT_GE(recipes.size(), 4u);
  for (const char* architecture : {"llama", "qwen2", "qwen3"}) {
    for (const Recipe& recipe : recipes) {
      SCOPED_TRACE(fmt::format("{} {}", architecture, recipe.name));
      const Graph graph = build_graph(tiny_config(architecture), recipe);
      expect_legal_widths(graph);
      expect_tied_converts(graph);
    }
  }
}

TEST(Graph, NamesAreUniqueAndEverySiteIsUsed) {
  const Graph graph = build_graph(tiny_config("qwen3"), with_rules("[]"));
  std::set<std::string> names;
  for (const Site& site : graph.sites) EXPECT_TRUE(names.insert(site.name).second) << site.name;
  std::set<std::string> nodes;
  std::set<int> used;
  for (const Node& node : graph.nodes) {
    EXPECT_TRUE(nodes.insert(node.name).second) << node.name;
    used.insert(node.out);
    if (node.weight >= 0) used.insert(node.weight);
  }
  EXPECT_EQ(used.size(), graph.sites.size());
  EXPECT_EQ(graph.site(graph.nodes.back().out).name, "logits");
}

TEST(Graph, WidthsFollowTheRecipe) {
  const Graph graph = build_graph(
      tiny_config("llama"), with_rules(R"([{"match": "layers.1.mlp.down_proj.in", "bitwidth": 16},
                                 {"match": "layers.*.q_proj.weight", "bitwidth": 4}])"));
  const auto dtype = [&](const char* name) {
    const int site = graph.find_site(name);
    EXPECT_GE(site, 0) << name;
    return graph.site(site).qparams.dtype;
  };
  EXPECT_EQ(dtype("layers.0.mlp.down_proj.in"), DType::kS8);
  EXPECT_EQ(dtype("layers.0.mlp.silu.out"), DType::kS8);
  EXPECT_EQ(dtype("layers.1.mlp.down_proj.in"), DType::kS16);
  EXPECT_EQ(dtype("layers.1.mlp.silu.out"), DType::kS16);
  EXPECT_EQ(dtype("layers.1.mlp.down_proj.out"), DType::kS16);
  EXPECT_EQ(dtype("layers.1.self_attn.q_proj.weight"), DType::kS4);
  EXPECT_EQ(dtype("layers.1.self_attn.k_proj.weight"), DType::kS8);
  EXPECT_EQ(graph.site(graph.find_site("layers.1.mlp.down_proj.in")).rule, 0);
  EXPECT_EQ(graph.site(graph.find_site("layers.0.mlp.down_proj.in")).rule, -1);
}

TEST(Graph, InputsThatAConvertWritesMayHaveFourBits) {
  const Recipe recipe = with_rules(R"([{"match": "layers.*.qkv_proj.in", "bitwidth": 4},
      {"match": "layers.*.o_proj.in", "bitwidth": 4},
      {"match": "layers.1.mlp.gate_up_proj.in", "bitwidth": 4}])");
  for (const char* architecture : {"llama", "qwen2", "qwen3"}) {
    const Graph graph = build_graph(tiny_config(architecture), recipe);
    expect_legal_widths(graph);
    expect_tied_converts(graph);
    const auto dtype = [&](const char* name) {
      return graph.site(graph.find_site(name)).qparams.dtype;
    };
    EXPECT_EQ(dtype("layers.0.self_attn.qkv_proj.in"), DType::kS4);
    EXPECT_EQ(dtype("layers.0.self_attn.context.out"), DType::kS16);
    EXPECT_EQ(dtype("layers.0.self_attn.o_proj.in"), DType::kS4);
    EXPECT_EQ(dtype("layers.0.mlp.gate_up_proj.in"), DType::kS8);
    EXPECT_EQ(dtype("layers.1.mlp.gate_up_proj.in"), DType::kS4);
    EXPECT_EQ(dtype("layers.1.mlp.gate_proj.out"), DType::kS8);
    EXPECT_EQ(dtype("layers.1.mlp.down_proj.in"), DType::kS8);
  }
}

TEST(Graph, MlpSizesFollowTheLayer) {
  ModelConfig config = tiny_config("llama");
  config.intermediate_sizes = {160, 176};
  const Graph graph = build_graph(config, with_rules("[]"));
  for (int layer : {0, 1}) {
    const auto site = [&](const char* name) {
      return graph.site(graph.find_site(fmt::format("layers.{}.mlp.{}", layer, name)));
    };
    const int size = config.intermediate_sizes[layer];
    for (const char* name : {"gate_proj.out", "up_proj.out", "silu.out", "down_proj.in"}) {
      EXPECT_EQ(site(name).cols, size) << name;
    }
    EXPECT_EQ(site("gate_proj.weight").rows, size);
    EXPECT_EQ(site("up_proj.weight").rows, size);
    EXPECT_EQ(site("down_proj.weight").cols, size);
    EXPECT_EQ(site("down_proj.weight").rows, 64);
  }
}

TEST(Graph, RecipesThatCannotBeAreRefused) {
  EXPECT_THAT(error_of(with_rules(R"([{"match": "layers.*.mlp.down.in", "bitwidth": 8}])")),
              AllOf(HasSubstr("rule 1"), HasSubstr("'layers.*.mlp.down.in' matches no site")));
  EXPECT_THAT(error_of(with_rules(R"([{"match": "*.residual.out", "bitwidth": 8}])")),
              AllOf(HasSubstr("residual.out"), HasSubstr("16 bits only")));
  EXPECT_THAT(error_of(with_rules(R"([{"match": "*.o_proj.in", "symmetric": false}])")),
              HasSubstr("must stay symmetric"));
  EXPECT_THAT(error_of(with_rules(R"([{"match": "*.k_cache", "bitwidth": 4}])")),
              HasSubstr("8 bits only"));
  EXPECT_THAT(error_of(with_rules(R"([{"match": "*.down_proj.in", "bitwidth": 4}])")),
              HasSubstr("8 or 16 bits only"));
  EXPECT_THAT(error_of(with_rules(R"([{"match": "lm_head.in", "bitwidth": 4}])")),
              HasSubstr("8 or 16 bits only"));
}

TEST(Graph, BlocksAreStoredAsBytesOfFourBits) {
  const Graph graph =
      build_graph(tiny_config("llama"),
                  with_rules(R"([{"match": "*_proj.weight", "bitwidth": 4, "block_size": 32},
                     {"match": "layers.1.mlp.down_proj.weight", "bitwidth": 8, "block_size": 0}])"));
  const json j = graph_to_json(graph);
  for (const Graph& g : {graph, graph_from_json(j)}) {
    const Site& q = g.site(g.find_site("layers.1.self_attn.q_proj.weight"));
    EXPECT_EQ(q.qparams.dtype, DType::kS8);
    EXPECT_EQ(q.spec.bitwidth, 4);
    EXPECT_EQ(q.spec.block_size, 32);
    const Site& down = g.site(g.find_site("layers.1.mlp.down_proj.weight"));
    EXPECT_EQ(down.spec.bitwidth, 8);
    EXPECT_EQ(down.spec.block_size, 0);
  }
}

TEST(Graph, BlocksThatCannotBeAreRefused) {
  EXPECT_THAT(error_of(with_rules(R"([{"match": "*_proj.weight", "block_size": 32}])")),
              AllOf(HasSubstr("q_proj.weight"), HasSubstr("of 8 bits; only 4-bit")));
  EXPECT_THAT(
      error_of(with_rules(R"([{"match": "*_proj.weight", "bitwidth": 4, "block_size": 24}])")),
      HasSubstr("blocks of 24 do not divide the 64 inputs"));
  EXPECT_THAT(
      error_of(with_rules(R"([{"match": "lm_head.weight", "bitwidth": 4, "block_size": 32}])")),
      AllOf(HasSubstr("lm_head.weight"), HasSubstr("only *_proj.weight")));
}

TEST(Graph, OnlyWeightsHaveTheIntegerMinusEight) {
  const Graph graph =
      build_graph(tiny_config("llama"),
                  with_rules(R"([{"match": "*_proj.weight", "bitwidth": 4, "narrow_range": false},
                     {"match": "layers.1.mlp.down_proj.weight", "narrow_range": true}])"));
  for (const Graph& g : {graph, graph_from_json(graph_to_json(graph))}) {
    EXPECT_FALSE(g.site(g.find_site("layers.1.self_attn.q_proj.weight")).spec.narrow_range);
    EXPECT_TRUE(g.site(g.find_site("layers.1.mlp.down_proj.weight")).spec.narrow_range);
  }
  EXPECT_THAT(error_of(with_rules(R"([{"match": "layers.*_proj.in", "narrow_range": false}])")),
              AllOf(HasSubstr("qkv_proj.in"), HasSubstr("only weights have")));
  EXPECT_THAT(error_of(with_rules(R"([{"match": "*_proj.weight", "bitwidth": 4, "block_size": 32,
                                       "narrow_range": false}])")),
              HasSubstr("cannot have both"));
}

TEST(Graph, JsonRoundTrip) {
  Graph graph = build_graph(tiny_config("qwen2"), with_rules("[]"));
  for (Site& site : graph.sites) {
    if (site.qparams.axis < 0) {
      site.qparams.scale = {0.1f};
      site.qparams.zero_point = {3};
    }
  }
  graph.nodes[0].law = Requant{2048, 7};
  graph.nodes[1].law = AddLaw{1, 2, 3};
  graph.nodes[2].law = MulLaw{5, 34};
  graph.nodes[3].law = RmsNormLaw{int64_t{1} << 50, 1 << 30, 40};
  EXPECT_FALSE(graph_to_json(graph).contains("prefix"));
  graph.prefix_tokens = {5, 0};
  const json j = graph_to_json(graph);
  const Graph again = graph_from_json(json::parse(j.dump()));
  EXPECT_EQ(graph_to_json(again), j);
  EXPECT_EQ(again.sites[5].qparams.scale, graph.sites[5].qparams.scale);
  EXPECT_EQ(again.prefix_tokens, graph.prefix_tokens);
}

TEST(Graph, DamagedJsonIsOneSentence) {
  const json good = graph_to_json(build_graph(tiny_config("llama"), with_rules("[]")));
  json bad = good;
  bad["nodes"][4]["out"] = 100000;
  EXPECT_THROW(graph_from_json(bad), Error);
  bad = good;
  bad["nodes"][3]["op"] = "fly";
  EXPECT_THROW(graph_from_json(bad), Error);
  bad = good;
  bad["nodes"].erase(0);  // something reads what nobody writes
  EXPECT_THROW(graph_from_json(bad), Error);
  bad = good;
  bad["prefix"] = {0, 320};  // the vocabulary ends at 319
  EXPECT_THROW(graph_from_json(bad), Error);
  bad = good;
  bad.erase("config");
  EXPECT_THROW(graph_from_json(bad), Error);
}

}  // namespace
}  // namespace qnpu
