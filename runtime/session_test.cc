// Equalities that hold to the bit, at every site, on random tiny models of each architecture.
#include "runtime/session.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "io/test_folder.h"
#include "runtime/testing/random_artifact.h"
#include "runtime/testing/site_rows.h"

namespace qnpu {
namespace {

using testing::first_difference;
using testing::run_and_record;
using testing::SiteRows;

constexpr int kTokens = 75;

constexpr char kFourBitInputs[] = R"([{"match": "*_proj.weight", "bitwidth": 4},
                                      {"match": "layers.*.qkv_proj.in", "bitwidth": 4},
                                      {"match": "layers.*.o_proj.in", "bitwidth": 4},
                                      {"match": "layers.*.gate_up_proj.in", "bitwidth": 4},
                                      {"match": "layers.*.down_proj.in", "bitwidth": 16}])";

struct Case {
  std::string architecture;
  std::string recipe;  // a file of recipes/, or JSON rules
  int prefix = 0;      // tokens
};

Recipe recipe_of(const std::string& text) {
  if (text[0] != '[') {
    return load_recipe(std::filesystem::path(QNPU_SOURCE_DIR) / "recipes" / (text + ".json"));
  }
  return recipe_from_json({{"name", "test"}, {"rules", nlohmann::json::parse(text)}}, "test");
}

std::vector<int32_t> random_tokens(int count, int vocab) {
  std::mt19937 random(7);
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(random() % vocab));
  return tokens;
}

class SessionTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const ModelConfig config =
        testing::tiny_config(GetParam().architecture, {.intermediate_sizes = {80, 112}});
    testing::make_random_artifact(config, recipe_of(GetParam().recipe), 1, folder_.path(),
                                  /*positions=*/192, GetParam().prefix);
    artifact_ = load_artifact(folder_.path());
    tokens_ = random_tokens(kTokens, config.vocab_size);
  }
  Session session(int threads = 1, Isa isa = best_isa()) const {
    return Session(artifact_, {.context = 100, .max_rows = 80, .threads = threads, .isa = isa});
  }
  void expect_equal(const SiteRows& a, const SiteRows& b) const {
    EXPECT_EQ(first_difference(artifact_->graph, a, b), "");
  }

  TestFolder folder_;
  std::shared_ptr<const Artifact> artifact_;
  std::vector<int32_t> tokens_;
};

TEST_P(SessionTest, FastEqualsReferenceAtEverySite) {
  Session reference = session(1, Isa::kReference);
  const SiteRows wanted = run_and_record(reference, tokens_, kTokens);
  EXPECT_GT(testing::count_numbers(wanted), 100000);
  for (const Isa isa : {Isa::kAvx2, Isa::kAvx512Vnni, Isa::kAmxInt8}) {
    if (!isa_supported(isa)) continue;
    Session fast = session(1, isa);
    expect_equal(wanted, run_and_record(fast, tokens_, kTokens));
  }
}

TEST_P(SessionTest, CutsAndThreadsDoNotMatter) {
  Session whole = session();
  const SiteRows wanted = run_and_record(whole, tokens_, kTokens);
  for (const int piece : {1, 2, 7, 32, 64}) {
    Session cut = session();
    expect_equal(wanted, run_and_record(cut, tokens_, piece));
  }
  Session parallel = session(2);
  expect_equal(wanted, run_and_record(parallel, tokens_, kTokens));
  parallel.reset();
  expect_equal(wanted, run_and_record(parallel, tokens_, 11));
}

// Weights outlive the session that laid them out, and another instruction set has its own.
TEST_P(SessionTest, SessionsShareWeights) {
  auto first = std::make_unique<Session>(session());
  const SiteRows wanted = run_and_record(*first, tokens_, kTokens);
  Session second(*first, {.context = 100, .max_rows = 80, .threads = 1});
  Session reference(second, {.context = 100, .max_rows = 80, .isa = Isa::kReference});
  first.reset();
  expect_equal(wanted, run_and_record(second, tokens_, kTokens));
  expect_equal(wanted, run_and_record(reference, tokens_, kTokens));
}

TEST_P(SessionTest, ReferenceCutsDoNotMatter) {
  Session whole = session(1, Isa::kReference);
  Session cut = session(1, Isa::kReference);
  expect_equal(run_and_record(whole, tokens_, kTokens), run_and_record(cut, tokens_, 9));
}

TEST_P(SessionTest, TruncateAndRunAgain) {
  Session session_a = session();
  const SiteRows wanted = run_and_record(session_a, tokens_, 10);
  Session session_b = session();
  const std::vector<int32_t> other = random_tokens(90, 50);
  run_and_record(session_b, std::span(tokens_).first(33), 33);
  run_and_record(session_b, std::span(other).first(40), 40);  // overwrites what follows
  session_b.truncate(GetParam().prefix + 33);
  EXPECT_EQ(session_b.position(), GetParam().prefix + 33);
  const SiteRows rest = run_and_record(session_b, std::span(tokens_).subspan(33), 10);
  for (const auto& [key, row] : rest) {
    EXPECT_EQ(wanted.at(key), row) << artifact_->graph.site(key.first).name;
  }
}

TEST_P(SessionTest, LastRowEqualsLastOfAllRows) {
  Session all = session();
  Session last = session();
  Session prefilled(artifact_, {.context = 100, .max_rows = 16, .threads = 1});
  const auto everything = all.run(tokens_, true);
  const auto one = last.run(tokens_, false);
  const auto in_pieces = prefilled.prefill(tokens_);
  const size_t vocab = static_cast<size_t>(artifact_->graph.config.vocab_size);
  ASSERT_EQ(everything.size(), vocab * kTokens);
  ASSERT_EQ(one.size(), vocab);
  ASSERT_EQ(in_pieces.size(), vocab);
  EXPECT_TRUE(std::ranges::equal(everything.last(vocab), one));
  EXPECT_TRUE(std::ranges::equal(in_pieces, one));
}

// A model whose logits say nothing would pass all of the above.
TEST_P(SessionTest, LogitsDependOnTokens) {
  Session a = session();
  const auto first = a.run(tokens_, false);
  const std::vector<int16_t> logits(first.begin(), first.end());
  tokens_[0] = (tokens_[0] + 1) % artifact_->graph.config.vocab_size;
  a.reset();
  EXPECT_FALSE(std::ranges::equal(logits, a.run(tokens_, false)));
  EXPECT_GT(std::ranges::max(logits) - std::ranges::min(logits), 20);
}

INSTANTIATE_TEST_SUITE_P(
    Models, SessionTest,
    ::testing::Values(Case{"llama", "w8a8kv8"}, Case{"llama", "w4a8kv8"}, Case{"llama", "w4a16kv8"},
                      Case{"qwen2", "w4a8kv8"}, Case{"qwen2", "w4a16kv8"}, Case{"qwen3", "w8a8kv8"},
                      Case{"qwen3", "w4a16kv8"}, Case{"llama", "w4a8kv8", 2},
                      Case{"qwen2", "w4a16kv8", 1}, Case{"qwen3", "w8a8kv8", 5},
                      // 8-bit logits; 16-bit SiLU between 8-bit linears; 4-bit head.
                      Case{"llama", R"([{"match": "lm_head.in", "bitwidth": 8},
                                        {"match": "*.silu.out", "bitwidth": 16},
                                        {"match": "lm_head.weight", "bitwidth": 4}])"},
                      Case{"llama", kFourBitInputs}, Case{"qwen2", kFourBitInputs, 2},
                      Case{"qwen3", kFourBitInputs}),
    [](const auto& info) {
      const std::string recipe = info.param.recipe == kFourBitInputs ? "a4"
                                 : info.param.recipe[0] == '['       ? "mixed"
                                                                     : info.param.recipe;
      const int prefix = info.param.prefix;
      return info.param.architecture + "_" + recipe +
             (prefix > 0 ? "_prefix" + std::to_string(prefix) : "");
    });

}  // namespace
}  // namespace qnpu
