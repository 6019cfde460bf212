#include "apps/qnpu/windows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/status.h"
#include "io/files.h"
#include "model/tokens.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;

const fs::path kSource = QNPU_SOURCE_DIR;
const fs::path kText = kSource / "testdata/goldens/prose.txt";

Tokenizer tokenizer() { return Tokenizer::load(kSource / "testdata/models/tiny-llama"); }

TEST(Windows, AreConsecutivePiecesOfTheWholeTextsTokens) {
  const std::vector<int> tokens = token_sequence(tokenizer(), read_text(kText));
  const Windows windows = text_windows(tokenizer(), kText, 100, 0);
  ASSERT_EQ(windows.count, tokens.size() / 100);
  ASSERT_EQ(windows.tokens.size(), windows.count * 100);
  for (int w = 0; w < windows.count; ++w) {
    for (int i = 0; i < 99; ++i) {
      EXPECT_EQ(windows.inputs(w)[i], tokens[w * 100 + i]);
      EXPECT_EQ(windows.targets(w)[i], tokens[w * 100 + i + 1]);
    }
  }
}

TEST(Windows, CountTheBytesOfPredictedTokensOnly) {
  const Windows windows = text_windows(tokenizer(), kText, 100, 3);
  EXPECT_EQ(windows.count, 3);
  int64_t bytes = 0;
  for (int w = 0; w < 3; ++w) {
    const auto targets = windows.targets(w);
    bytes += tokenizer().decode({targets.begin(), targets.end()}).size();
  }
  EXPECT_EQ(windows.scored_bytes, bytes);
}

TEST(Windows, AShortTextIsAnErrorThatSaysHowShort) {
  try {
    text_windows(tokenizer(), kText, 100000, 0);
    FAIL();
  } catch (const Error& error) {
    const auto count = token_sequence(tokenizer(), read_text(kText)).size();
    EXPECT_THAT(error.what(), testing::HasSubstr(fmt::format("has {} tokens", count)));
    EXPECT_THAT(error.what(), testing::HasSubstr("--length"));
  }
}

}  // namespace
}  // namespace qnpu
