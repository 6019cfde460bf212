#include "io/token_stream.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace qnpu {
namespace {

Tokenizer tokenizer() {
  return Tokenizer::load(std::filesystem::path(QNPU_SOURCE_DIR) / "testdata/models/tiny-qwen2");
}

TEST(TokenStream, ShowsOnlyWholeCharacters) {
  const Tokenizer t = tokenizer();
  const std::string text = "na\u00efve \u732b \U0001f600!";
  TokenStream stream(t, t.encode("A", false).back());
  std::string shown;
  int silent = 0;
  for (int token : t.encode(text, false)) {
    const std::string piece = stream.add(token);
    EXPECT_EQ(incomplete_tail(piece), 0);
    silent += piece.empty();
    shown += piece;
  }
  EXPECT_EQ(shown, text);
  EXPECT_GT(silent, 0);  // some characters take several tokens
  EXPECT_EQ(stream.finish(), "");
  EXPECT_EQ(stream.text(), text);
}

TEST(TokenStream, AnUnfinishedCharacterIsReplacedAtTheEnd) {
  const Tokenizer t = tokenizer();
  std::vector<int> tokens = t.encode("ok \U0001f600", false);
  tokens.pop_back();
  TokenStream stream(t, tokens.front());
  std::string shown;
  for (int token : tokens) shown += stream.add(token);
  EXPECT_EQ(shown, "ok ");
  EXPECT_EQ(stream.finish(), "\ufffd");
  EXPECT_EQ(stream.text(), "ok \ufffd");
}

TEST(TokenStream, IncompleteTail) {
  EXPECT_EQ(incomplete_tail(""), 0);
  EXPECT_EQ(incomplete_tail("abc"), 0);
  EXPECT_EQ(incomplete_tail("a\xc3"), 1);
  EXPECT_EQ(incomplete_tail("a\xc3\xa9"), 0);
  EXPECT_EQ(incomplete_tail("a\xf0\x9f\x98"), 3);
  EXPECT_EQ(incomplete_tail("\xf0\x9f\x98\x80"), 0);
  EXPECT_EQ(incomplete_tail("\x80\x80\x80\x80"), 0);  // never becomes a character
}

}  // namespace
}  // namespace qnpu
