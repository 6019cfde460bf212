#include "server/choice_text.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace qnpu::server {
namespace {

Tokenizer tokenizer() {
  return Tokenizer::load(std::filesystem::path(QNPU_SOURCE_DIR) / "testdata/models/tiny-qwen2");
}

struct Whole {
  std::string text;
  std::vector<TextToken> tokens;
  bool stopped = false;
};

Whole feed(const Tokenizer& t, const std::vector<int>& tokens, std::vector<std::string> stops,
           int prompt = 0) {
  ChoiceText choice(t, -1, std::move(stops));
  Whole whole;
  const auto take = [&](TextPart part) {
    whole.text += part.text;
    for (TextToken& token : part.tokens) whole.tokens.push_back(token);
  };
  for (size_t i = 0; i < tokens.size(); ++i) {
    TokenOutput output;
    output.token = tokens[i];
    output.is_prompt = static_cast<int>(i) < prompt;
    take(choice.add(output));
  }
  take(choice.finish());
  whole.stopped = choice.is_stopped();
  return whole;
}

// Against a search in the whole text, for stop texts that begin and end inside of tokens.
TEST(ChoiceText, EndsBeforeTheFirstStopText) {
  const Tokenizer t = tokenizer();
  std::mt19937 random(5);
  const std::string text = "the river runs through the town, na\u00efve \u732b \U0001f600! the end";
  const std::vector<int> tokens = t.encode(text, false);
  const auto boundary = [&](size_t at) {  // of characters, at `at` or before
    while (at < text.size() && (text[at] & 0xc0) == 0x80) --at;
    return at;
  };
  int stopped = 0;
  for (int round = 0; round < 400; ++round) {
    std::vector<std::string> stops;
    for (size_t n = 1 + random() % 3; n > 0; --n) {
      const size_t begin = boundary(random() % text.size());
      const size_t end = boundary(std::min(text.size(), begin + 1 + random() % 6));
      std::string stop = begin == end ? "the" : text.substr(begin, end - begin);
      if (random() % 2 == 0) stop += "x";  // begins like the text, but is not in it
      stops.push_back(stop);
    }
    size_t first = text.size();  // of the stop text that is complete first
    for (size_t end = 1; end <= text.size() && first == text.size(); ++end) {
      for (const std::string& stop : stops) {
        if (text.substr(0, end).ends_with(stop)) first = std::min(first, end - stop.size());
      }
    }
    const Whole got = feed(t, tokens, stops);
    EXPECT_EQ(got.text, text.substr(0, first));
    EXPECT_EQ(got.stopped, first < text.size());
    stopped += got.stopped;
  }
  EXPECT_GT(stopped, 50);
}

TEST(ChoiceText, TokensAndTheirPlaces) {
  const Tokenizer t = tokenizer();
  const std::string text = "a na\u00efve \u732b";
  const Whole got = feed(t, t.encode(text, false), {});
  std::string bytes;
  for (const TextToken& token : got.tokens) {
    const auto characters =
        std::ranges::count_if(bytes, [](unsigned char c) { return (c & 0xc0) != 0x80; });
    // Bytes in the middle of a character stand before it: it is no text until it is whole.
    EXPECT_LE(token.offset, characters);
    EXPECT_GE(token.offset, characters - 1);
    bytes += token.bytes;
  }
  EXPECT_EQ(bytes, text);
  EXPECT_EQ(got.tokens.size(), t.encode(text, false).size());
}

TEST(ChoiceText, StopTextsAreNotLookedForInThePrompt) {
  const Tokenizer t = tokenizer();
  const std::vector<int> tokens = t.encode("one two three two one", false);
  const Whole all = feed(t, tokens, {"never"}, static_cast<int>(tokens.size()));
  EXPECT_EQ(all.text, "one two three two one");
  int prompt = 0;
  for (std::string text; text.find("three") == std::string::npos; ++prompt) {
    text += t.decode({tokens[static_cast<size_t>(prompt)]});
  }
  const Whole got = feed(t, tokens, {"two"}, prompt);
  EXPECT_EQ(got.text, "one two three ");
  EXPECT_TRUE(got.stopped);
}

}  // namespace
}  // namespace qnpu::server
