#include "runtime/generate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/test_folder.h"
#include "runtime/speculate.h"
#include "runtime/testing/random_artifact.h"

namespace qnpu {
namespace {

class GenerateTest : public ::testing::Test {
 protected:
  GenerateTest() {
    testing::make_random_artifact(testing::tiny_config("qwen2"), Recipe{}, 6, folder_.path());
    artifact_ = load_artifact(folder_.path());
  }
  Session session(int context = 64) const {
    return Session(artifact_, {.context = context, .max_rows = 4, .threads = 1});
  }

  TestFolder folder_;
  std::shared_ptr<const Artifact> artifact_;
  const std::vector<int32_t> prompt_ = {5, 17, 3, 88, 41, 2, 9};
};

// Greedy generation by hand: the most likely continuation of everything so far, from nothing.
TEST_F(GenerateTest, GreedyIsTheArgmaxOfTheWholeText) {
  Session s = session();
  const Generated result = generate(s, prompt_, {.max_tokens = 10});
  EXPECT_EQ(result.reason, StopReason::kMaxTokens);
  ASSERT_EQ(result.tokens.size(), 10u);
  std::vector<int32_t> text = prompt_;
  for (const int32_t token : result.tokens) {
    Session fresh = session();
    EXPECT_EQ(token, greedy_token(fresh.prefill(text)));
    text.push_back(token);
  }
}

TEST_F(GenerateTest, StopsAtAnEndToken) {
  Session s = session();
  const auto all = generate(s, prompt_, {.max_tokens = 12}).tokens;
  const int32_t end = all[4];
  const auto first = std::ranges::find(all, end) - all.begin();
  s.reset();
  const Generated result = generate(s, prompt_, {.max_tokens = 12, .end_tokens = {95, end}});
  EXPECT_EQ(result.reason, StopReason::kEndToken);
  EXPECT_THAT(result.tokens, ::testing::ElementsAreArray(all.begin(), all.begin() + first));
}

TEST_F(GenerateTest, StopsWhereTheContextEnds) {
  Session s = session(10);
  const Generated result = generate(s, prompt_, {.max_tokens = 100});
  EXPECT_EQ(result.reason, StopReason::kContextFull);
  // 7 positions hold the prompt, 3 more tokens fit, and the last logits give one more.
  EXPECT_EQ(result.tokens.size(), 4u);
  EXPECT_STREQ(stop_reason_name(result.reason), "context full");
}

TEST_F(GenerateTest, CallbackSeesEveryTokenAndCanStop) {
  Session s = session();
  std::vector<int32_t> seen;
  const Generated result =
      generate(s, prompt_, {.sampling = {.temperature = 1.0, .seed = 3}, .max_tokens = 20},
               [&](int32_t token) {
                 seen.push_back(token);
                 return seen.size() < 5;
               });
  EXPECT_EQ(result.reason, StopReason::kCaller);
  EXPECT_EQ(result.tokens, seen);
  EXPECT_EQ(seen.size(), 5u);
}

TEST_F(GenerateTest, LongPromptsAreRefused) {
  Session s = session(5);
  EXPECT_THAT(error_of([&] { generate(s, prompt_, {}); }),
              ::testing::HasSubstr("the context is full"));
  EXPECT_EQ(s.position(), 0);
  EXPECT_THAT(error_of([&] { generate(s, {}, {}); }), ::testing::HasSubstr("at least one"));
}

// Whatever is proposed, the tokens, the reason and the place in the cache are those without it.
TEST_F(GenerateTest, SpeculationChangesNothing) {
  const std::vector<int32_t> prompt = {5, 17, 3, 5, 17, 3, 5, 17};
  int64_t proposed = 0, accepted = 0;
  for (const double temperature : {0.0, 0.7}) {
    for (const int context : {40, 64}) {
      GenerateOptions options = {.sampling = {.temperature = temperature, .seed = 4},
                                 .max_tokens = 50};
      Session plain = session(context), fast = session(context);
      const Generated wanted = generate(plain, prompt, options);
      for (const int speculate : {1, 2, 3, 9}) {
        options.speculate = speculate;
        fast.reset();
        const Generated result = generate(fast, prompt, options);
        EXPECT_EQ(result.tokens, wanted.tokens);
        EXPECT_EQ(result.reason, wanted.reason);
        EXPECT_EQ(fast.position(), plain.position());
        proposed += result.proposed;
        accepted += result.accepted;
      }
    }
  }
  EXPECT_GT(accepted, 10);
  EXPECT_GT(proposed, accepted);
}

TEST_F(GenerateTest, SpeculationStopsWhereItShould) {
  const std::vector<int32_t> prompt = {5, 17, 3, 5, 17, 3, 5, 17};
  Session s = session();
  const auto all = generate(s, prompt, {.max_tokens = 20}).tokens;
  const int32_t end = all[9];
  const auto first = std::ranges::find(all, end) - all.begin();
  s.reset();
  const Generated result =
      generate(s, prompt, {.max_tokens = 20, .speculate = 3, .end_tokens = {end}});
  EXPECT_EQ(result.reason, StopReason::kEndToken);
  EXPECT_THAT(result.tokens, ::testing::ElementsAreArray(all.begin(), all.begin() + first));
}

TEST(Propose, WhatFollowedTheLongestLatestMatch) {
  const std::vector<int32_t> text = {1, 2, 3, 4, 9, 2, 3, 5, 7, 2, 3};
  const auto found = [&](int count) {
    const auto proposal = propose(text, count);
    return std::vector<int32_t>(proposal.begin(), proposal.end());
  };
  EXPECT_THAT(found(3), ::testing::ElementsAre(5, 7, 2));
  EXPECT_THAT(found(99), ::testing::ElementsAre(5, 7, 2, 3));
  EXPECT_TRUE(found(0).empty());
  // Three tokens in a row count more than two later ones.
  const std::vector<int32_t> longer = {4, 2, 3, 8, 1, 2, 3, 6, 4, 2, 3};
  EXPECT_EQ(propose(longer, 1)[0], 8);
  EXPECT_TRUE(propose(std::vector<int32_t>{1, 2, 3}, 4).empty());
  EXPECT_TRUE(propose(std::vector<int32_t>{}, 4).empty());
}

TEST_F(GenerateTest, NoTokensWanted) {
  Session s = session();
  const Generated result = generate(s, prompt_, {.max_tokens = 0});
  EXPECT_TRUE(result.tokens.empty());
  EXPECT_EQ(result.reason, StopReason::kMaxTokens);
}

}  // namespace
}  // namespace qnpu
