// The golden artifacts were frozen by older programs, so what they store is independent of today's.
#include "model/laws.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"

namespace qnpu {
namespace {

using ::testing::HasSubstr;

Artifact golden(const std::string& name) {
  return *load_artifact(std::string(QNPU_SOURCE_DIR) + "/testdata/artifacts/" + name);
}

std::string complaint(const Artifact& artifact) {
  try {
    check_laws(artifact);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Laws, OfAGoldenArtifactFollowFromItsScales) {
  EXPECT_EQ(complaint(golden("v1-tiny-qwen3")), "");
}

// Its multipliers of RoPE were made in double, which the compiler does not do.
TEST(Laws, AnOlderRoundingIsRefused) {
  EXPECT_THAT(complaint(golden("v1-tiny-llama")),
              HasSubstr("site 'layers.1.self_attn.k_rope.sin'"));
}

// Its attention products are divided by sqrt(head_dim), which stands in no scale.
TEST(Laws, AFactorThatNoScaleHasIsRefused) {
  EXPECT_THAT(complaint(golden("v2-prefix-qwen3")),
              HasSubstr("site 'layers.0.self_attn.scores.out'"));
}

// Whatever site's scale is changed, some node that reads or writes it no longer follows.
TEST(Laws, AnyOtherScaleIsRefused) {
  const Artifact good = golden("v1-tiny-qwen3");
  int changed = 0;
  for (size_t i = 0; i < good.graph.sites.size(); ++i) {
    const Site& site = good.graph.sites[i];
    if (site.qparams.scale.empty()) continue;
    Artifact bad = good;
    bad.graph.sites[i].qparams.scale[0] *= 1.01f;
    EXPECT_THAT(complaint(bad), HasSubstr("does not follow")) << site.name;
    ++changed;
  }
  EXPECT_GT(changed, 50);
}

TEST(Laws, AnotherMultiplierIsRefused) {
  Artifact bad = golden("v1-tiny-qwen3");
  for (Node& node : bad.graph.nodes) {
    if (node.name == "layers.1.mlp.residual") std::get<AddLaw>(node.law).ma += 1;
  }
  EXPECT_THAT(complaint(bad), HasSubstr("site 'layers.1.mlp.residual.out'"));
}

}  // namespace
}  // namespace qnpu
