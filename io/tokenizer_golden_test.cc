// Ids equal those of the `tokenizers` library, for a tokenizer of each family's structure.
#include "io/tokenizer_golden.h"

#include <gtest/gtest.h>

#include "io/json_part.h"
#include "io/pretokenizer.h"
#include "io/tokenizer.h"
#include "io/unicode.h"

namespace qnpu {
namespace {

class Family : public testing::TestWithParam<const char*> {
 protected:
  Family()
      : tokenizer_(Tokenizer::load(golden_folder() / GetParam())),
        texts_(read_json(golden_folder() / "texts.json")),
        expected_(read_json(golden_folder() / GetParam() / "expected.json")) {}

  std::vector<std::string> tokens(const std::vector<int>& ids) const {
    std::vector<std::string> result;
    for (const int id : ids) result.push_back(tokenizer_.id_to_token(id));
    return result;
  }

  Tokenizer tokenizer_;
  nlohmann::json texts_, expected_;
};

TEST_P(Family, IdsOfTheNastyText) {
  EXPECT_EQ(tokenizer_.vocab_size(), expected_["vocab_size"]);
  for (const auto& [name, text] : texts_["sections"].items()) {
    const std::vector<int> expected = expected_["sections"][name]["ids"];
    const std::vector<int> ids = tokenizer_.encode(text.get<std::string>(), true);
    EXPECT_EQ(tokens(ids), tokens(expected)) << name;
    EXPECT_EQ(ids, expected) << name;
    EXPECT_EQ(tokenizer_.encode(text.get<std::string>(), false).size(),
              expected_["sections"][name]["plain"])
        << name;
  }
}

TEST_P(Family, DecodedText) {
  for (const auto& [name, section] : expected_["sections"].items()) {
    const std::string decoded = tokenizer_.decode(section["ids"], /*skip_special_tokens=*/true);
    EXPECT_EQ(replace_invalid_utf8(decoded), section["decoded"].get<std::string>()) << name;
  }
}

TEST_P(Family, IdsOfTheMixedText) {
  EXPECT_EQ(summary(tokenizer_.encode(mixed_text(texts_), true)), expected_["mixed"]);
}

TEST_P(Family, TokensAndIdsAgree) {
  for (int id = 0; id < tokenizer_.vocab_size(); ++id) {
    EXPECT_EQ(tokenizer_.token_to_id(tokenizer_.id_to_token(id)), id);
  }
  EXPECT_EQ(tokenizer_.token_to_id("no such token"), -1);
}

INSTANTIATE_TEST_SUITE_P(Tokenizer, Family,
                         testing::Values("smollm2", "qwen2", "llama3", "llama2", "mistral",
                                         "flags"),
                         [](const auto& info) { return std::string(info.param); });

TEST(PreTokenizer, SplitsLikeTheLibrary) {
  const nlohmann::json golden = read_json(golden_folder() / "splits.json");
  const std::string text = golden["text"];
  for (const auto& entry : golden["splits"]) {
    const JsonPart part(entry["pre_tokenizer"], "test");
    TextPieces pieces;
    make_pretokenizers(part).split({text, /*at_start=*/true}, pieces);
    std::vector<std::string> result;
    for (const TextPiece& piece : pieces.list) result.emplace_back(piece.text);
    EXPECT_EQ(result, entry["pieces"].get<std::vector<std::string>>()) << entry.dump();
  }
}

}  // namespace
}  // namespace qnpu
