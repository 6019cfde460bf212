// A prefix is what its tokens would have left in the caches: a session that begins with it equals,
// to the bit and at every site, one that has read those tokens.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <random>

#include "io/test_folder.h"
#include "runtime/generate.h"
#include "runtime/session.h"
#include "runtime/testing/random_artifact.h"
#include "runtime/testing/site_rows.h"

namespace qnpu {
namespace {

using ::testing::HasSubstr;
using testing::SiteRows;

constexpr int kPrefix = 5;
constexpr int kTokens = 40;

std::vector<int32_t> random_tokens(int count) {
  std::mt19937 random(3);
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(random() % 96));
  return tokens;
}

// `from` with `tokens` as its prefix: their rows in the caches are those of `rows`.
void write_with_prefix(const Artifact& from, const std::vector<int32_t>& tokens,
                       const SiteRows& rows, const std::filesystem::path& folder) {
  Graph graph = from.graph;
  graph.prefix_tokens = tokens;
  const int count = graph.prefix_length();
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, view] : from.tensors.tensors()) {
    tensors.push_back({name, view.dtype, view.shape, {view.data, view.bytes}});
  }
  std::deque<std::vector<int8_t>> storage;
  for (const Node& node : graph.nodes) {
    if (node.op != Op::kAppend) continue;
    std::vector<int8_t>& q = storage.emplace_back();
    for (int p = 0; p < count; ++p) {
      const std::vector<int16_t>& row = rows.at({node.out, p});
      q.insert(q.end(), row.begin(), row.end());
    }
    const Site& cache = graph.site(node.out);
    tensors.push_back(
        {cache.name + ".prefix", "I8", {count, cache.cols}, std::as_bytes(std::span(q))});
  }
  write_artifact(folder, graph, tensors, from.positions, {});
}

class PrefixTest : public ::testing::TestWithParam<const char*> {
 protected:
  PrefixTest() {
    testing::make_random_artifact(testing::tiny_config(GetParam()), Recipe{}, 8, plain_.path());
    read_ = std::make_unique<Session>(load_artifact(plain_.path()),
                                      SessionOptions{.context = 100, .threads = 1});
    const std::vector<int32_t> first = random_tokens(kPrefix);
    const SiteRows rows = testing::run_and_record(*read_, first, kPrefix);
    write_with_prefix(*load_artifact(plain_.path()), first, rows, prefixed_.path());
    artifact_ = load_artifact(prefixed_.path());
  }

  TestFolder plain_, prefixed_;
  std::unique_ptr<Session> read_;  // without a prefix; has read the prefix's tokens
  std::shared_ptr<const Artifact> artifact_;
  const std::vector<int32_t> tokens_ = random_tokens(kTokens);
};

TEST_P(PrefixTest, EqualsItsTokensReadBefore) {
  EXPECT_EQ(artifact_->graph.prefix_tokens, random_tokens(kPrefix));
  const SiteRows wanted = testing::run_and_record(*read_, tokens_, 16);
  for (const Isa isa : {Isa::kReference, best_isa()}) {
    Session session(artifact_, {.context = 100, .max_rows = 64, .threads = 2, .isa = isa});
    EXPECT_EQ(session.prefix_length(), kPrefix);
    for (const int piece : {kTokens, 1, 7}) {
      session.reset();
      EXPECT_EQ(session.position(), kPrefix);
      const SiteRows got = testing::run_and_record(session, tokens_, piece);
      EXPECT_EQ(testing::first_difference(artifact_->graph, wanted, got), "");
      EXPECT_EQ(session.position(), kPrefix + kTokens);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, PrefixTest, ::testing::Values("llama", "qwen2", "qwen3"));

class PrefixErrorsTest : public ::testing::Test {
 protected:
  PrefixErrorsTest() {
    testing::make_random_artifact(testing::tiny_config("llama"), Recipe{}, 2, folder_.path(),
                                  /*positions=*/192, /*prefix=*/3);
    artifact_ = load_artifact(folder_.path());
  }

  TestFolder folder_;
  std::shared_ptr<const Artifact> artifact_;
  const std::vector<int32_t> tokens_ = random_tokens(8);
};

TEST_F(PrefixErrorsTest, ContextCountsThePrefix) {
  const auto error = [&](int context) {
    return error_of([&] { Session(artifact_, {.context = context}); });
  };
  EXPECT_THAT(error(3), AllOf(HasSubstr("a context of 3 positions"), HasSubstr("takes 3 of them")));
  EXPECT_EQ(error(4), "");
  EXPECT_EQ(Session(artifact_, {}).context(), 192);
  Session session(artifact_, {.context = 10, .threads = 1});
  session.run(std::span(tokens_).first(5), false);
  EXPECT_THAT(
      error_of([&] { session.run(std::span(tokens_).first(3), false); }),
      HasSubstr("3 tokens after the 5 already seen are more than its 10 positions hold beside the "
                "3 of the prefix"));
  session.run(std::span(tokens_).first(2), false);
  EXPECT_EQ(session.position(), 10);
}

TEST_F(PrefixErrorsTest, ThePrefixStays) {
  Session session(artifact_, {.context = 20, .threads = 1});
  const auto first = session.run(tokens_, false);
  const std::vector<int16_t> wanted(first.begin(), first.end());
  EXPECT_THAT(error_of([&] { session.truncate(2); }), HasSubstr("behind a prefix of 3"));
  EXPECT_EQ(session.position(), 11);
  session.truncate(3);
  EXPECT_TRUE(std::ranges::equal(session.run(tokens_, false), wanted));
}

TEST_F(PrefixErrorsTest, GenerationStopsWhereTheContextEnds) {
  Session session(artifact_, {.context = 13, .threads = 1});
  const Generated result = generate(session, tokens_, {.max_tokens = 100});
  EXPECT_EQ(result.reason, StopReason::kContextFull);
  EXPECT_EQ(result.tokens.size(), 3u);  // 13 = 3 + 8 + 2, and one from the last logits
}

}  // namespace
}  // namespace qnpu
