#include "runtime/generate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/test_folder.h"
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

TEST_F(GenerateTest, NoTokensWanted) {
  Session s = session();
  const Generated result = generate(s, prompt_, {.max_tokens = 0});
  EXPECT_TRUE(result.tokens.empty());
  EXPECT_EQ(result.reason, StopReason::kMaxTokens);
}

}  // namespace
}  // namespace qnpu
