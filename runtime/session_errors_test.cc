// Bad input to a session: one clear sentence, and the session goes on as if nothing had happened.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/test_folder.h"
#include "runtime/generate.h"
#include "runtime/session.h"
#include "runtime/testing/random_artifact.h"

namespace qnpu {
namespace {

using ::testing::HasSubstr;

class SessionErrorsTest : public ::testing::Test {
 protected:
  SessionErrorsTest() {
    testing::make_random_artifact(testing::tiny_config("llama"), Recipe{}, 2, folder_.path());
    artifact_ = load_artifact(folder_.path());
  }
  Session session() const {
    return Session(artifact_, {.context = 20, .max_rows = 8, .threads = 1});
  }

  TestFolder folder_;
  std::shared_ptr<const Artifact> artifact_;
  const std::vector<int32_t> tokens_ = {5, 17, 3, 88, 41, 2, 9, 60};
};

TEST_F(SessionErrorsTest, FullContextChangesNothing) {
  Session a = session();
  Session b = session();
  for (Session* s : {&a, &b}) {
    s->run(tokens_, false);
    s->run(tokens_, false);
  }
  EXPECT_THAT(error_of([&] { a.run(tokens_, false); }), HasSubstr("the context is full"));
  const std::vector<int32_t> long_text(30, 1);
  EXPECT_THAT(error_of([&] { a.prefill(long_text); }), HasSubstr("the context is full"));
  EXPECT_EQ(a.position(), 16);
  const auto four = std::span(tokens_).first(4);
  EXPECT_TRUE(std::ranges::equal(a.run(four, false), b.run(four, false)));
  EXPECT_EQ(a.position(), 20);
  EXPECT_THAT(error_of([&] { a.run(four.first(1), false); }), HasSubstr("20 positions"));
}

TEST_F(SessionErrorsTest, TokensOutOfRangeChangeNothing) {
  Session s = session();
  for (const int32_t bad : {-1, 96, 1 << 30}) {
    const std::vector<int32_t> tokens = {1, 2, bad};
    EXPECT_THAT(error_of([&] { s.run(tokens, true); }),
                HasSubstr("token " + std::to_string(bad) + " is not in the vocabulary of 96"));
    EXPECT_THAT(error_of([&] { s.prefill(tokens); }), HasSubstr("vocabulary"));
  }
  EXPECT_EQ(s.position(), 0);
}

TEST_F(SessionErrorsTest, WrongCalls) {
  Session s = session();
  EXPECT_THAT(error_of([&] { s.run({}, false); }), HasSubstr("at least one"));
  const std::vector<int32_t> nine(9, 1);
  EXPECT_THAT(error_of([&] { s.run(nine, false); }), HasSubstr("takes 8 at a time"));
  EXPECT_THAT(error_of([&] { s.truncate(1); }), HasSubstr("cannot go back"));
  EXPECT_THAT(error_of([&] { s.truncate(-1); }), HasSubstr("cannot go back"));
}

TEST_F(SessionErrorsTest, WrongOptions) {
  const auto error = [&](SessionOptions options) {
    return error_of([&] { Session(artifact_, options); });
  };
  EXPECT_THAT(error({.context = 193}), HasSubstr("was made for 192"));
  EXPECT_THAT(error({.context = -1}), HasSubstr("at least 1"));
  EXPECT_THAT(error({.max_rows = 0}), HasSubstr("at least 1"));
  EXPECT_THAT(error({.threads = -2}), HasSubstr("threads"));
  EXPECT_EQ(Session(artifact_, {}).context(), 192);
  EXPECT_EQ(Session(artifact_, {.context = 3}).max_rows(), 3);
}

TEST_F(SessionErrorsTest, WhatCanOnlyBeSimulatedIsRefused) {
  auto artifact = std::make_shared<Artifact>(*artifact_);
  artifact->manifest["deployable"] = false;
  artifact->manifest["online"] = {
      {"r3", "hadamard"}, {"r4", "none"}, {"dynamic_activations", true}};
  EXPECT_THAT(error_of([&] { Session(artifact, {}); }),
              AllOf(HasSubstr("(R3)"), Not(HasSubstr("R4")), HasSubstr("scales of activations"),
                    HasSubstr("only be simulated")));
  artifact->manifest["deployable"] = true;
  EXPECT_EQ(Session(artifact, {}).context(), 192);
}

// The whole context can be used, to the last position.
TEST_F(SessionErrorsTest, ContextCanBeFilled) {
  Session s(artifact_, {.max_rows = 50, .threads = 1});
  const std::vector<int32_t> text(192, 7);
  EXPECT_EQ(s.prefill(text).size(), 96u);
  EXPECT_EQ(s.position(), 192);
}

// A law that was lost or broken is refused when the session is made, not met while it runs.
TEST_F(SessionErrorsTest, BrokenLaws) {
  auto broken = std::make_shared<Artifact>(*artifact_);
  for (Node& node : broken->graph.nodes) {
    if (node.op == Op::kScores) node.law = Law{};
  }
  EXPECT_THAT(error_of([&] { Session(broken, {}); }),
              HasSubstr("layers.0.self_attn.scores (scores) has no valid integer law"));
  broken = std::make_shared<Artifact>(*artifact_);
  for (Node& node : broken->graph.nodes) {
    if (node.op == Op::kMul) node.law = MulLaw{1, 0};
  }
  EXPECT_THAT(error_of([&] { Session(broken, {}); }), HasSubstr("layers.0.mlp.mul (mul)"));
  for (const int shift : {-1000, 6, 1000}) {
    broken = std::make_shared<Artifact>(*artifact_);
    std::get<RmsNormLaw>(broken->graph.nodes[1].law).shift = shift;
    EXPECT_THAT(error_of([&] { Session(broken, {}); }), HasSubstr("no valid integer law"));
  }
}

TEST_F(SessionErrorsTest, MixedWidths) {
  auto broken = std::make_shared<Artifact>(*artifact_);
  const int site = broken->graph.find_site("layers.1.mlp.up_proj.out");
  broken->graph.sites[static_cast<size_t>(site)].qparams.dtype = DType::kS16;
  EXPECT_THAT(error_of([&] { Session(broken, {}); }), HasSubstr("layers.1.mlp.up_proj (linear)"));
  // 4 bits are for what a linear reads.
  broken = std::make_shared<Artifact>(*artifact_);
  for (const char* name : {"gate_proj.out", "up_proj.out", "silu.out", "down_proj.in"}) {
    const int index = broken->graph.find_site(std::string("layers.1.mlp.") + name);
    broken->graph.sites[static_cast<size_t>(index)].qparams.dtype = DType::kS4;
  }
  EXPECT_THAT(error_of([&] { Session(broken, {}); }), HasSubstr("layers.1.mlp.gate_proj (linear)"));
}

}  // namespace
}  // namespace qnpu
