#include "apps/qnpu/evaluation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/status.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;

constexpr int kVocab = 11;

Windows some_windows(int length, int count) {
  Windows windows;
  windows.length = length;
  windows.count = count;
  for (int i = 0; i < length * count; ++i) windows.tokens.push_back(i * 7 % kVocab);
  windows.scored_bytes = 1000;
  windows.text_hash = "0123456789abcdef";
  return windows;
}

float logit(int window, int position, int token) {
  return std::sin(1.0f + window * 31 + position * 5 + token * token) * 4;
}

// Logits by window, position and token; checks that it is called as a source may expect.
LogitsSource sine_source(float shift = 0) {
  struct State {
    int window = -1, position = 0;
    std::vector<float> logits;
  };
  const auto state = std::make_shared<State>();
  LogitsSource source;
  source.name = "sine";
  source.vocab = kVocab;
  source.context = 1 << 20;
  source.rows = [state, shift](int window, std::span<const int32_t> inputs, int begin, int count) {
    EXPECT_LE(count, kLogitsRows);
    EXPECT_LE(begin + count, inputs.size());
    if (begin == 0) *state = {window, 0, {}};
    EXPECT_EQ(window, state->window);
    EXPECT_EQ(begin, state->position);
    state->position += count;
    state->logits.clear();
    for (int i = begin; i < begin + count; ++i) {
      for (int v = 0; v < kVocab; ++v) state->logits.push_back(logit(window, i, v) + shift * v);
    }
    return std::span<const float>(state->logits);
  };
  return source;
}

double brute_force_nll(const Windows& windows, int w, int i) {
  double sum = 0;
  for (int v = 0; v < kVocab; ++v) sum += std::exp(double{logit(w, i, v)});
  return std::log(sum) - logit(w, i, windows.targets(w)[i]);
}

class EvaluationTest : public testing::Test {
 protected:
  void SetUp() override {
    file_ = fs::path(testing::TempDir()) /
            fmt::format("logits-{}.safetensors",
                        testing::UnitTest::GetInstance()->current_test_info()->name());
  }
  void TearDown() override { fs::remove(file_); }

  void store(const Windows& windows, const LogitsSource& source) {
    LogitsWriter writer(file_, windows, kVocab);
    evaluate(windows, source, nullptr, &writer, progress_);
    writer.commit();
  }

  fs::path file_;
  Progress progress_;
};

TEST_F(EvaluationTest, CountsEachTokenButAWindowsFirst) {
  for (int length : {2, 128, 129, 130, 300}) {
    const Windows windows = some_windows(length, 3);
    const Evaluation result = evaluate(windows, sine_source(), nullptr, nullptr, progress_);
    double nll = 0;
    for (int w = 0; w < 3; ++w) {
      for (int i = 0; i + 1 < length; ++i) nll += brute_force_nll(windows, w, i);
    }
    EXPECT_EQ(result.tested.tokens, 3 * (length - 1));
    EXPECT_NEAR(result.tested.nll, nll, 1e-6 * nll);
    EXPECT_EQ(result.divergence.tokens, 0);
  }
}

TEST_F(EvaluationTest, AgainstItselfAndAgainstAnother) {
  const Windows windows = some_windows(200, 2);
  const LogitsSource reference = sine_source();
  const Evaluation same = evaluate(windows, sine_source(), &reference, nullptr, progress_);
  EXPECT_EQ(same.divergence.kl_divergence(), 0.0);
  EXPECT_EQ(same.divergence.top1_agreement(), 1.0);
  EXPECT_EQ(same.reference.nll, same.tested.nll);
  const Evaluation other = evaluate(windows, sine_source(0.5f), &reference, nullptr, progress_);
  EXPECT_GT(other.divergence.kl_divergence(), 0.1);
  EXPECT_LT(other.divergence.top1_agreement(), 1.0);
}

TEST_F(EvaluationTest, StoredLogitsStandForTheModel) {
  const Windows windows = some_windows(200, 3);
  store(windows, sine_source());
  const LogitsSource stored = stored_source(file_, windows);
  EXPECT_EQ(stored.vocab, kVocab);
  const Evaluation result = evaluate(windows, sine_source(), &stored, nullptr, progress_);
  EXPECT_LT(result.divergence.kl_divergence(), 1e-6);
  EXPECT_NEAR(result.reference.nll, result.tested.nll, 1e-4 * result.tested.nll);
  const LogitsSource fewer = stored_source(file_, some_windows(200, 2));
  EXPECT_EQ(evaluate(some_windows(200, 2), fewer, nullptr, nullptr, progress_).tested.tokens, 398);
}

TEST_F(EvaluationTest, StoredLogitsOfSomethingElseAreRefused) {
  const Windows windows = some_windows(20, 3);
  store(windows, sine_source());
  const auto message = [&](const Windows& asked) -> std::string {
    try {
      stored_source(file_, asked);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message(windows), "");
  EXPECT_THAT(message(some_windows(20, 4)), testing::HasSubstr("--windows"));
  EXPECT_THAT(message(some_windows(30, 2)), testing::HasSubstr("--length"));
  Windows other = windows;
  other.text_hash = "something else";
  EXPECT_THAT(message(other), testing::HasSubstr("another text"));
  other = windows;
  other.tokens[5] += 1;
  EXPECT_THAT(message(other), testing::HasSubstr("another tokenizer"));
}

TEST_F(EvaluationTest, AnUnfinishedFileLeavesNothing) {
  const Windows windows = some_windows(20, 3);
  { LogitsWriter writer(file_, windows, kVocab); }
  EXPECT_FALSE(fs::exists(file_));
}

TEST_F(EvaluationTest, LogitsThatCannotBeComparedAreErrors) {
  const Windows windows = some_windows(20, 1);
  LogitsSource reference = sine_source();
  reference.vocab = kVocab + 1;
  EXPECT_THROW(evaluate(windows, sine_source(), &reference, nullptr, progress_), Error);
  const LogitsSource broken = sine_source(std::numeric_limits<float>::quiet_NaN());
  EXPECT_THROW(evaluate(windows, broken, nullptr, nullptr, progress_), Error);
}

}  // namespace
}  // namespace qnpu
