// What a generation gets from the engine, whatever runs beside it, is what generate() gives alone.
#include "server/engine.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "io/files.h"
#include "io/test_folder.h"
#include "runtime/generate.h"
#include "runtime/testing/random_artifact.h"

namespace qnpu::server {
namespace {

using ::testing::HasSubstr;
using Tokens = std::vector<int32_t>;
using std::chrono::seconds;

constexpr int kVocab = 96, kEnd = 7, kContext = 120;

struct Said {
  std::vector<TokenOutput> prompt, tokens;
  Finish finish = Finish::kNone;

  Tokens ids() const {
    Tokens ids;
    for (const TokenOutput& token : tokens) ids.push_back(token.token);
    return ids;
  }
};

// Everything that all choices say, until each is at its end; an unfinished one stays kNone.
std::vector<Said> listen(Channel& channel, Clock::time_point until = Clock::now() + seconds(60)) {
  std::vector<Said> said(static_cast<size_t>(channel.choices()));
  int open = channel.choices();
  while (open > 0 && Clock::now() < until) {
    for (Event& event : channel.take(until)) {
      Said& choice = said[static_cast<size_t>(event.choice)];
      EXPECT_EQ(choice.finish, Finish::kNone) << "said something after its end";
      choice.finish = event.finish;
      if (event.finish != Finish::kNone) {
        --open;
      } else {
        (event.token.is_prompt ? choice.prompt : choice.tokens).push_back(event.token);
      }
    }
  }
  return said;
}

class EngineTest : public ::testing::TestWithParam<std::tuple<std::string, int>> {
 protected:
  void SetUp() override {
    const auto [architecture, prefix] = GetParam();
    testing::make_random_artifact(testing::tiny_config(architecture), Recipe{}, 3, folder_.path(),
                                  /*positions=*/192, prefix);
    write_json(folder_.path() / "generation_config.json", {{"eos_token_id", kEnd}});
    artifact_ = load_artifact(folder_.path());
  }
  std::unique_ptr<Engine> engine(int slots, int queue = 64) {
    return std::make_unique<Engine>(
        artifact_,
        EngineOptions{.slots = slots, .context = kContext, .threads = 1, .max_queue = queue},
        metrics_);
  }
  Session session() const { return Session(artifact_, {.context = kContext, .threads = 1}); }
  GenerationRequest random_request() {
    GenerationRequest request;
    const int beginning = static_cast<int>(random_() % 3) * 20;  // some begin alike
    for (int i = 0; i < beginning; ++i) request.prompt.push_back(i % kVocab);
    for (size_t i = 1 + random_() % 30; i > 0; --i) {
      request.prompt.push_back(static_cast<int32_t>(random_() % kVocab));
    }
    request.max_tokens = static_cast<int>(random_() % 40);
    request.sampling.temperature = random_() % 2 == 0 ? 0.0 : 1.5;
    request.sampling.top_p = random_() % 2 == 0 ? 1.0 : 0.8;
    request.sampling.seed = random_();
    request.prompt_logprobs = random_() % 3 == 0;
    if (random_() % 2 == 0) request.top_logprobs = static_cast<int>(random_() % 4);
    return request;
  }
  void expect_as_alone(const GenerationRequest& request, const Said& said);

  TestFolder folder_;
  std::shared_ptr<const Artifact> artifact_;
  Metrics metrics_;
  std::mt19937 random_{11};
};

// log softmax by its definition.
double logprob(std::span<const int16_t> row, double scale, int32_t token) {
  long double sum = 0;
  for (const int16_t logit : row) sum += std::exp(scale * static_cast<long double>(logit));
  return static_cast<double>(scale * row[static_cast<size_t>(token)] - std::log(sum));
}

void EngineTest::expect_as_alone(const GenerationRequest& request, const Said& said) {
  Session alone = session();
  const Generated wanted = generate(
      alone, request.prompt,
      {.sampling = request.sampling, .max_tokens = request.max_tokens, .end_tokens = {kEnd}});
  Tokens ids = said.ids();
  if (wanted.reason == StopReason::kEndToken) {
    EXPECT_EQ(said.finish, Finish::kStop);
    ASSERT_FALSE(ids.empty());
    EXPECT_TRUE(said.tokens.back().is_end);
    EXPECT_EQ(ids.back(), kEnd);
    ids.pop_back();
  } else {
    EXPECT_EQ(said.finish, Finish::kLength);
  }
  EXPECT_EQ(ids, wanted.tokens);
  const bool says_prompt = request.prompt_logprobs && request.top_logprobs;
  EXPECT_EQ(said.prompt.size(), says_prompt ? request.prompt.size() : 0);
  if (!request.top_logprobs) return;
  // Logits of everything that was said, in one call of another session.
  Tokens all = request.prompt;
  for (const int32_t id : said.ids()) all.push_back(id);
  if (all.size() > static_cast<size_t>(alone.context() - alone.prefix_length())) all.pop_back();
  Session again = session();
  const auto rows = again.run(all, /*all_rows=*/true);
  const auto check = [&](const TokenOutput& token, size_t position) {
    const auto row = rows.subspan((position - 1) * kVocab, kVocab);
    EXPECT_NEAR(token.logprob.value(), logprob(row, again.logits_scale(), token.token), 1e-9);
    EXPECT_GE(token.top.size(), static_cast<size_t>(*request.top_logprobs));
    for (size_t i = 0; i < token.top.size(); ++i) {
      EXPECT_NEAR(token.top[i].logprob, logprob(row, again.logits_scale(), token.top[i].token),
                  1e-9);
    }
  };
  for (size_t i = 0; i < said.prompt.size(); ++i) {
    EXPECT_EQ(said.prompt[i].token, request.prompt[i]);
    if (i == 0) {
      EXPECT_FALSE(said.prompt[0].logprob.has_value());
    }
    if (i > 0) check(said.prompt[i], i);
  }
  for (size_t i = 0; i < said.tokens.size(); ++i) check(said.tokens[i], request.prompt.size() + i);
}

TEST_P(EngineTest, ManyAtOnceGetWhatEachGetsAlone) {
  const auto engine = this->engine(5);
  std::vector<std::vector<GenerationRequest>> requests;
  std::vector<std::shared_ptr<Channel>> channels;
  for (int i = 0; i < 30; ++i) {
    requests.emplace_back();
    for (size_t n = 1 + random_() % 3; n > 0; --n) requests.back().push_back(random_request());
    channels.push_back(std::make_shared<Channel>(static_cast<int>(requests.back().size())));
    // Some come while others run, some are given up.
    while (!engine->submit(requests.back(), channels.back())) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (i % 5 == 4) channels.back()->cancel(0);
    if (i % 7 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    const std::vector<Said> said = listen(*channels[i]);
    for (size_t choice = 0; choice < said.size(); ++choice) {
      if (said[choice].finish == Finish::kCancelled) {
        EXPECT_TRUE(i % 5 == 4 && choice == 0);
        continue;
      }
      SCOPED_TRACE(fmt::format("request {}, choice {}", i, choice));
      expect_as_alone(requests[i][choice], said[choice]);
    }
  }
  EXPECT_TRUE(engine->is_idle());
}

TEST_P(EngineTest, ACommonBeginningIsComputedOnce) {
  const auto engine = this->engine(3);
  GenerationRequest request;
  for (int i = 0; i < 60; ++i) request.prompt.push_back((7 * i + 1) % kVocab);
  request.max_tokens = 3;
  for (int i = 0; i < 3; ++i) {
    request.prompt.back() = i;
    const auto channel = std::make_shared<Channel>(1);
    ASSERT_TRUE(engine->submit({request}, channel));
    expect_as_alone(request, listen(*channel)[0]);
  }
  EXPECT_THAT(metrics_.text({}), HasSubstr("qnpu_reused_tokens_total 118\n"));
}

TEST_P(EngineTest, SlotsAreGivenInOrder) {
  const auto engine = this->engine(1);
  const auto channel = std::make_shared<Channel>(6);
  GenerationRequest request;
  request.prompt = {1, 2, 3};
  request.max_tokens = 4;
  ASSERT_TRUE(engine->submit(std::vector<GenerationRequest>(6, request), channel));
  int finished = 0;
  while (finished < 6) {
    for (const Event& event : channel->take(Clock::now() + seconds(60))) {
      EXPECT_EQ(event.choice, finished);
      finished += event.finish != Finish::kNone;
    }
  }
}

// A prompt of many walks does not keep a short one from its end.
TEST_P(EngineTest, ALongPromptHoldsUpNobody) {
  const auto engine = this->engine(40);
  GenerationRequest many, one;
  many.prompt.assign(static_cast<size_t>(engine->longest_prompt()), 5);
  many.max_tokens = 1;
  one.prompt = {3, 4};
  one.max_tokens = 1;
  const auto channel = std::make_shared<Channel>(40);
  std::vector<GenerationRequest> requests(39, many);
  requests.push_back(one);
  ASSERT_TRUE(engine->submit(requests, channel));
  std::vector<int> order;
  while (order.size() < requests.size()) {
    for (const Event& event : channel->take(Clock::now() + seconds(60))) {
      if (event.finish != Finish::kNone) order.push_back(event.choice);
    }
  }
  EXPECT_EQ(order.front(), 39);
}

TEST_P(EngineTest, EndsBeforeItsTime) {
  const auto engine = this->engine(2, /*queue=*/4);
  GenerationRequest endless;
  endless.prompt = {1};
  endless.max_tokens = 1 << 30;
  const auto full = std::make_shared<Channel>(1);
  ASSERT_TRUE(engine->submit({endless}, full));
  Said said = listen(*full)[0];
  EXPECT_EQ(said.finish, Finish::kLength);
  EXPECT_EQ(said.tokens.size(), static_cast<size_t>(engine->longest_prompt()));
  endless.deadline = Clock::now() - seconds(1);
  const auto late = std::make_shared<Channel>(1);
  ASSERT_TRUE(engine->submit({endless}, late));
  EXPECT_EQ(listen(*late)[0].finish, Finish::kTimeout);
  const auto crowd = std::make_shared<Channel>(5);
  EXPECT_FALSE(engine->submit(std::vector<GenerationRequest>(5, endless), crowd));
  engine->cancel_all();
  endless.deadline = Clock::time_point::max();
  const auto afterwards = std::make_shared<Channel>(1);
  ASSERT_TRUE(engine->submit({endless}, afterwards));
  EXPECT_EQ(listen(*afterwards)[0].finish, Finish::kCancelled);
  EXPECT_TRUE(engine->is_idle());
}

TEST_P(EngineTest, WrongValues) {
  const auto engine = this->engine(2);
  const auto error = [&](auto change) {
    GenerationRequest request;
    request.prompt = {1};
    change(request);
    return error_of([&] { engine->submit({request}, std::make_shared<Channel>(1)); });
  };
  using R = GenerationRequest;
  EXPECT_THAT(error([](R& r) { r.prompt.clear(); }), HasSubstr("no tokens"));
  EXPECT_THAT(error([](R& r) { r.prompt.assign(kContext + 1, 1); }), HasSubstr("121 tokens"));
  EXPECT_THAT(error([](R& r) { r.prompt = {kVocab}; }), HasSubstr("token 96"));
  EXPECT_THAT(error([](R& r) { r.prompt = {-1}; }), HasSubstr("token -1"));
  EXPECT_THAT(error([](R& r) { r.max_tokens = -1; }), HasSubstr("max_tokens"));
  EXPECT_THAT(error([](R& r) { r.sampling.top_p = 0; }), HasSubstr("top-p"));
  EXPECT_THAT(error_of([&] { this->engine(0); }), HasSubstr("0 slots"));
  EXPECT_THAT(error_of([&] { this->engine(65); }), HasSubstr("65 slots"));
  EXPECT_TRUE(engine->is_idle());
}

INSTANTIATE_TEST_SUITE_P(Models, EngineTest,
                         ::testing::Combine(::testing::Values(std::string("llama"),
                                                              std::string("qwen3")),
                                            ::testing::Values(0, 2)),
                         [](const auto& info) {
                           return fmt::format("{}_prefix{}", std::get<0>(info.param),
                                              std::get<1>(info.param));
                         });

}  // namespace
}  // namespace qnpu::server
