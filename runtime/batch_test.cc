// Several sequences in one walk: each gets the bits that it gets alone.
#include "runtime/batch.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "io/test_folder.h"
#include "runtime/session.h"
#include "runtime/testing/random_artifact.h"

namespace qnpu {
namespace {

using ::testing::HasSubstr;
using Tokens = std::vector<int32_t>;
using Logits = std::vector<int16_t>;

Tokens random_tokens(std::mt19937& random, int count) {
  Tokens tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 96);
  return tokens;
}

Logits copy_of(std::span<const int16_t> logits) { return {logits.begin(), logits.end()}; }

class BatchTest : public ::testing::TestWithParam<std::tuple<std::string, int, Isa>> {
 protected:
  void SetUp() override {
    const auto [architecture, prefix, isa] = GetParam();
    if (!isa_supported(isa)) GTEST_SKIP() << "this CPU has no " << isa_name(isa);
    testing::make_random_artifact(testing::tiny_config(architecture), Recipe{}, 3, folder_.path(),
                                  /*positions=*/192, prefix);
    artifact_ = load_artifact(folder_.path());
  }
  Session session(int sequences, int threads = 1) const {
    return Session(artifact_, {.context = 90,
                               .max_rows = 64,
                               .threads = threads,
                               .sequences = sequences,
                               .isa = std::get<Isa>(GetParam())});
  }

  TestFolder folder_;
  std::shared_ptr<const Artifact> artifact_;
};

TEST_P(BatchTest, PiecesGetTheBitsThatTheyGetAlone) {
  constexpr int kSequences = 5;
  std::mt19937 random(17);
  Session together = session(kSequences, 2);
  std::vector<Session> alone;
  for (int i = 0; i < kSequences; ++i) alone.push_back(session(1));
  for (int round = 0; round < 12; ++round) {
    // Sequences in any order, some of them left out, prompts beside single tokens.
    std::vector<int> order = {0, 1, 2, 3, 4};
    std::shuffle(order.begin(), order.end(), random);
    order.resize(1 + random() % kSequences);
    std::vector<Tokens> tokens;
    std::vector<Piece> pieces;
    for (const int sequence : order) {
      tokens.push_back(random_tokens(random, random() % 2 == 0 ? 1 : 1 + random() % 12));
      if (together.position(sequence) + 12 > together.context()) together.reset(sequence);
    }
    size_t rows = 0;
    for (size_t i = 0; i < order.size(); ++i) {
      pieces.push_back({order[i], tokens[i], random() % 3 == 0});
      rows += pieces.back().rows();
    }
    std::vector<int> before;
    for (const int sequence : order) before.push_back(together.position(sequence));
    const Logits logits = copy_of(together.run_batch(pieces));
    ASSERT_EQ(logits.size(), rows * 96);
    for (size_t i = 0, row = 0; i < order.size(); row += pieces[i++].rows()) {
      Session& single = alone[static_cast<size_t>(order[i])];
      single.truncate(before[i]);
      const auto wanted = single.run(tokens[i], pieces[i].all_rows);
      EXPECT_TRUE(std::ranges::equal(std::span(logits).subspan(row * 96, wanted.size()), wanted))
          << "round " << round << ", sequence " << order[i];
      EXPECT_EQ(together.position(order[i]), single.position());
    }
  }
}

TEST_P(BatchTest, ACopiedBeginningIsAsGoodAsOneComputed) {
  std::mt19937 random(5);
  Session s = session(3);
  const Tokens begin = random_tokens(random, 30), more = random_tokens(random, 7);
  s.prefill(begin);
  s.copy(0, 2, s.position() - 4);
  EXPECT_EQ(s.position(2), s.position() - 4);
  Session computed = session(1);
  computed.prefill(std::span(begin).first(26));
  const Piece piece = {2, more};
  EXPECT_EQ(copy_of(s.run_batch({&piece, 1})), copy_of(computed.run(more, false)));
  // The original is untouched.
  const Tokens next = {8};
  Session whole = session(1);
  whole.prefill(begin);
  EXPECT_EQ(copy_of(s.run(next, false)), copy_of(whole.run(next, false)));
}

// What is traced is what runs: attention in one and attention in steps end in the same logits.
TEST_P(BatchTest, TracedAndUntracedLogitsAreEqual) {
  std::mt19937 random(2);
  const Tokens tokens = random_tokens(random, 60);
  Session plain = session(1), traced = session(1);
  int nodes = 0;
  traced.set_trace([&](const SiteValues&) { ++nodes; });
  EXPECT_EQ(copy_of(plain.run(tokens, true)), copy_of(traced.run(tokens, true)));
  EXPECT_EQ(nodes, static_cast<int>(traced.graph().nodes.size()));
  // Caches go over into the other layout and back in the middle of a text.
  const Tokens next = random_tokens(random, 5), last = random_tokens(random, 4);
  traced.set_trace({});
  EXPECT_EQ(copy_of(plain.run(next, true)), copy_of(traced.run(next, true)));
  traced.set_trace([&](const SiteValues&) {});
  EXPECT_EQ(copy_of(plain.run(last, true)), copy_of(traced.run(last, true)));
}

TEST_P(BatchTest, WrongCalls) {
  Session s = session(2);
  const Tokens one = {1}, many(40, 2), outside = {1, 96};
  const std::vector<Piece> twice = {{1, one}, {1, one}}, unknown = {{2, one}},
                           long_ones = {{0, many}, {1, many}}, bad = {{0, one}, {1, outside}};
  EXPECT_THAT(error_of([&] { s.run_batch(twice); }), HasSubstr("sequence 1 is in two pieces"));
  EXPECT_THAT(error_of([&] { s.run_batch(unknown); }), HasSubstr("there is no sequence 2"));
  EXPECT_THAT(error_of([&] { s.run_batch(long_ones); }), HasSubstr("takes 64 at a time"));
  EXPECT_THAT(error_of([&] { s.run_batch(bad); }), HasSubstr("vocabulary"));
  EXPECT_THAT(error_of([&] { s.run_batch({}); }), HasSubstr("no pieces"));
  EXPECT_THAT(error_of([&] { s.copy(0, 1, 70); }), HasSubstr("cannot copy 70"));
  EXPECT_THAT(error_of([&] { s.set_trace([](const SiteValues&) {}); }), HasSubstr("traced"));
  EXPECT_THAT(error_of([&] { session(0); }), HasSubstr("0 sequences"));
  EXPECT_EQ(s.position(0), s.prefix_length());
  EXPECT_EQ(s.position(1), s.prefix_length());
}

INSTANTIATE_TEST_SUITE_P(Models, BatchTest,
                         ::testing::Combine(::testing::Values(std::string("llama"),
                                                              std::string("qwen3")),
                                            ::testing::Values(0, 2),
                                            ::testing::Values(Isa::kReference, Isa::kAvx2,
                                                              Isa::kAvx512Vnni, Isa::kAmxInt8)),
                         [](const auto& info) {
                           return fmt::format("{}_prefix{}_{}", std::get<0>(info.param),
                                              std::get<1>(info.param),
                                              isa_name(std::get<2>(info.param)));
                         });

}  // namespace
}  // namespace qnpu
