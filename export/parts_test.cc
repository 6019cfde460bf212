#include "export/parts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"

namespace qnpu {
namespace {

using ::testing::HasSubstr;

std::shared_ptr<const Artifact> two_layers() {
  return load_artifact(std::string(QNPU_SOURCE_DIR) + "/testdata/artifacts/v1-tiny-qwen3");
}

TEST(Parts, EveryNodeIsInOneAndReadsOnlyTheResidualOfAnother) {
  const auto artifact = two_layers();
  const Graph& graph = artifact->graph;
  std::map<int, int> writer;  // part by site
  for (const Node& node : graph.nodes) {
    const bool first = is_in({0, 2}, graph, node), second = is_in({1, 2}, graph, node);
    EXPECT_NE(first, second) << node.name;
    writer[node.out] = second;
    for (const int in : node.in) {
      if (writer.at(in) != writer.at(node.out)) {
        EXPECT_EQ(in, residual_into({1, 2}, graph)) << node.name;
      }
    }
  }
  EXPECT_EQ(graph.site(residual_into({1, 2}, graph)).name, "layers.0.mlp.residual.out");
}

TEST(Parts, AsFewAsTheLimitAllows) {
  const auto artifact = two_layers();
  const int64_t whole = part_bytes(*artifact, {0, 1});
  const int64_t larger = std::max(part_bytes(*artifact, {0, 2}), part_bytes(*artifact, {1, 2}));
  EXPECT_LT(larger, whole);
  EXPECT_EQ(parts_needed(*artifact), 1);
  EXPECT_EQ(parts_needed(*artifact, whole), 1);
  EXPECT_EQ(parts_needed(*artifact, whole - 1), 2);
  EXPECT_THROW(parts_needed(*artifact, larger - 1), Error);
}

TEST(Parts, NoMoreThanLayers) {
  Part part{0, 3};
  try {
    choose_parts(*two_layers(), part);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("2 layers"));
  }
}

TEST(Parts, NoMoreThanNamesInOrder) {
  Artifact deep = *two_layers();
  deep.graph.config.num_layers = 200;
  Part part{0, 99};
  choose_parts(deep, part);
  EXPECT_LT(part_name("decode", {1, 99}), part_name("decode", {98, 99}));
  part.count = 100;
  EXPECT_THROW(choose_parts(deep, part), Error);
}

TEST(Parts, NamesSortInTheirOrder) {
  EXPECT_EQ(part_name("decode", {0, 1}), "decode");
  EXPECT_LT(part_name("decode", {8, 12}), part_name("decode", {9, 12}));
}

}  // namespace
}  // namespace qnpu
