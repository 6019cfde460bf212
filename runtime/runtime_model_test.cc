// The equalities of session_test.cc on a real model: an artifact of SmolLM2-135M, made by
// `qnpu quantize`. QNPU_ARTIFACT_DIR names its folder; the default is out/test/w4a8kv8,
// which scripts/test makes.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <random>

#include "runtime/testing/site_rows.h"

namespace qnpu {
namespace {

using testing::first_difference;
using testing::SiteRows;

class RuntimeModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* given = std::getenv("QNPU_ARTIFACT_DIR");
    const auto folder = given != nullptr
                            ? std::filesystem::path(given)
                            : std::filesystem::path(QNPU_SOURCE_DIR) / "out/test/w4a8kv8";
    ASSERT_TRUE(is_artifact(folder)) << folder << " holds no artifact: `scripts/test` makes one";
    artifact_ = load_artifact(folder);
  }

  // Any tokens do for equality; a mixture of runs and jumps moves attention around.
  std::vector<int32_t> tokens(int count) const {
    std::mt19937 random(11);
    std::vector<int32_t> out;
    const auto vocab = static_cast<unsigned>(artifact_->graph.config.vocab_size);
    for (int i = 0; i < count; ++i) {
      const bool repeat = i > 4 && random() % 3 == 0;
      out.push_back(repeat ? out[out.size() - 4] : static_cast<int32_t>(random() % vocab));
    }
    return out;
  }

  std::shared_ptr<const Artifact> artifact_;
};

TEST_F(RuntimeModelTest, FastEqualsReferenceAtEverySite) {
  constexpr int kTokens = 256;
  constexpr int kPiece = 16;  // what is recorded of both must fit into memory
  const std::vector<int32_t> text = tokens(kTokens);
  const SessionOptions options = {.context = kTokens, .max_rows = kPiece};
  SessionOptions slow = options;
  slow.isa = Isa::kReference;
  Session fast(artifact_, options);
  Session reference(artifact_, slow);
  int64_t compared = 0;
  for (int i = 0; i < kTokens; i += kPiece) {
    const auto piece = std::span(text).subspan(static_cast<size_t>(i), kPiece);
    const SiteRows wanted = testing::run_and_record(reference, piece, kPiece);
    const SiteRows got = testing::run_and_record(fast, piece, kPiece);
    ASSERT_EQ(first_difference(artifact_->graph, wanted, got), "");
    compared += testing::count_numbers(got);
  }
  std::printf("%s equals reference in %lld numbers of %zu sites over %d tokens\n",
              isa_name(best_isa()), static_cast<long long>(compared), artifact_->graph.nodes.size(),
              kTokens);
  RecordProperty("compared", std::to_string(compared));
}

TEST_F(RuntimeModelTest, DecodeEqualsPrefill) {
  constexpr int kTokens = 64;
  const std::vector<int32_t> text = tokens(kTokens);
  const SessionOptions options = {.context = kTokens, .max_rows = kTokens};
  Session whole(artifact_, options);
  Session stepwise(artifact_, options);
  const SiteRows wanted = testing::run_and_record(whole, text, kTokens);
  EXPECT_EQ(first_difference(artifact_->graph, wanted, testing::run_and_record(stepwise, text, 1)),
            "");
  SessionOptions single = options;
  single.threads = 1;
  Session one_thread(artifact_, single);
  EXPECT_EQ(
      first_difference(artifact_->graph, wanted, testing::run_and_record(one_thread, text, 24)),
      "");
}

}  // namespace
}  // namespace qnpu
