#include "quant/calibration_text.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "io/files.h"
#include "quant/test_models.h"

namespace qnpu {
namespace {

class CalibrationText : public testing::Test {
 protected:
  Tokenizer tokenizer_ = Tokenizer::load(tiny_model_folder("tiny-llama"));
  std::string text_ = read_text(source_folder() / "LICENSE");
};

std::vector<int> joined(const std::vector<Window>& windows) {
  std::vector<int> all;
  for (const Window& window : windows) all.insert(all.end(), window.begin(), window.end());
  return all;
}

TEST_F(CalibrationText, WhatIsHeldOutIsNeverLearnedFrom) {
  const TextWindows windows = make_windows(tokenizer_, {{"licence", text_}}, {4, 32, 0, true});
  ASSERT_EQ(windows.held_out.size(), 1u);
  EXPECT_EQ(windows.held_out[0].name, "licence");
  EXPECT_EQ(windows.held_out[0].windows.size(), 4u);
  // Together they are the text, one after the other.
  std::vector<int> all = joined(windows.learning);
  for (const int token : joined(windows.held_out[0].windows)) all.push_back(token);
  const TextWindows plain = make_windows(tokenizer_, {{"licence", text_}}, {1 << 20, 1, 0, false});
  EXPECT_EQ(all, joined(plain.calibration));
  // Calibration windows lie in what is learned from.
  const std::vector<int> learned = joined(windows.learning);
  for (const Window& window : windows.calibration) {
    EXPECT_NE(std::search(learned.begin(), learned.end(), window.begin(), window.end()),
              learned.end());
  }
}

TEST_F(CalibrationText, TextsTakeTurns) {
  const std::string half = text_.substr(0, text_.size() / 2);
  const std::string rest = text_.substr(text_.size() / 2);
  const TextWindows both = make_windows(tokenizer_, {{"a", half}, {"b", rest}}, {6, 16, 7, false});
  const TextWindows a = make_windows(tokenizer_, {{"a", half}}, {3, 16, 7, false});
  const TextWindows b = make_windows(tokenizer_, {{"b", rest}}, {3, 16, 7, false});
  ASSERT_EQ(both.calibration.size(), 6u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(both.calibration[2 * i], a.calibration[i]);
    EXPECT_EQ(both.calibration[2 * i + 1], b.calibration[i]);
  }
  EXPECT_TRUE(both.learning.empty());
  EXPECT_TRUE(both.held_out.empty());
}

TEST_F(CalibrationText, MoreTextsThanWindows) {
  const std::vector<NamedText> texts = {{"a", text_}, {"b", text_}, {"c", text_}};
  EXPECT_EQ(make_windows(tokenizer_, texts, {2, 16, 7, false}).calibration.size(), 2u);
  EXPECT_EQ(make_windows(tokenizer_, texts, {4, 16, 7, false}).calibration.size(), 4u);
}

TEST_F(CalibrationText, AShortTextHoldsNothingBack) {
  const NamedText text{"short", text_.substr(0, 300)};
  const TextWindows single = make_windows(tokenizer_, {text}, {1 << 20, 1, 0, false});
  const int more_than_half = static_cast<int>(single.calibration.size()) / 2 + 1;
  const TextWindows windows = make_windows(tokenizer_, {text}, {1, more_than_half, 0, true});
  EXPECT_TRUE(windows.held_out.empty());
  EXPECT_EQ(windows.learning.size(), 1u);
}

TEST_F(CalibrationText, SinkTokensAreKnownAndDifferent) {
  const std::vector<int> tokens = sink_tokens(tokenizer_);
  EXPECT_EQ(std::set<int>(tokens.begin(), tokens.end()).size(), tokens.size());
  for (const int token : tokens) EXPECT_LT(token, tokenizer_.vocab_size());
}

TEST(Few, TakesBeginnings) {
  const std::vector<Window> windows = {{1, 2, 3}, {4}, {5, 6, 7, 8}};
  EXPECT_EQ(few(windows, 2, 2), (std::vector<Window>{{1, 2}, {4}}));
  EXPECT_EQ(few(windows, 9, 9), windows);
  EXPECT_EQ(last_few(windows, 2, 2), (std::vector<Window>{{4}, {5, 6}}));
  EXPECT_EQ(last_few(windows, 9, 9), windows);
}

}  // namespace
}  // namespace qnpu
