// What the goldens cannot show: damaged and unknown files, invalid UTF-8, rules of the
// configuration.
#include "io/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "io/files.h"
#include "io/test_folder.h"
#include "io/tokenizer_golden.h"
#include "io/unicode.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class TokenizerFile : public testing::Test {
 protected:
  explicit TokenizerFile(const char* family = "smollm2")
      : file_(read_json(golden_folder() / family / "tokenizer.json")) {}

  Tokenizer load() {
    write_json(folder_.path() / "tokenizer.json", file_);
    return Tokenizer::load(folder_.path());
  }
  // The id of a new token.
  int add_token(json token) {
    const int last = file_["added_tokens"].back()["id"];
    const int id = std::max(last + 1, static_cast<int>(file_["model"]["vocab"].size()));
    token["id"] = id;
    file_["added_tokens"].push_back(token);
    return id;
  }
  // The complaint about the file after a change to it.
  std::string error_after(const std::function<void(json&)>& change) {
    const json whole = file_;
    change(file_);
    const std::string error = error_of([&] { load(); });
    file_ = whole;
    EXPECT_THAT(error, HasSubstr((folder_.path() / "tokenizer.json").string()));
    return error;
  }

  TestFolder folder_;
  json file_;
};

TEST_F(TokenizerFile, MissingOrDamaged) {
  EXPECT_THAT(error_of([&] { Tokenizer::load(folder_.path()); }), HasSubstr("No such file"));
  write_file(folder_.path() / "tokenizer.json", "{\"model\": ");
  EXPECT_THAT(error_of([&] { Tokenizer::load(folder_.path()); }), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_after([](json& file) { file = json::array(); }),
              HasSubstr("\"model\" is missing"));
  EXPECT_THAT(error_after([](json& file) { file.erase("model"); }),
              HasSubstr("\"model\" is missing"));
  EXPECT_THAT(error_after([](json& file) { file["model"].erase("vocab"); }),
              HasSubstr("\"vocab\" is missing"));
  EXPECT_THAT(error_after([](json& file) { file["model"]["vocab"]["a"] = -1; }),
              HasSubstr("the id of a"));
  EXPECT_THAT(error_after([](json& file) { file["model"]["merges"][0] = "nospace"; }),
              HasSubstr("nospace is no pair"));
  EXPECT_THAT(error_after([](json& file) { file["model"]["merges"][0] = "a ?nowhere?"; }),
              HasSubstr("not in the vocabulary"));
  EXPECT_THAT(error_after([](json& file) { file["added_tokens"][0].erase("content"); }),
              HasSubstr("added_tokens[0]: \"content\" is missing"));
}

TEST_F(TokenizerFile, UnknownKindsAreNamed) {
  const auto with_kind = [&](const char* part, const char* kind) {
    return error_after([&](json& file) { file[part] = {{"type", kind}}; });
  };
  EXPECT_THAT(with_kind("normalizer", "Lowercase"), HasSubstr("normalizer: the kind Lowercase"));
  EXPECT_THAT(with_kind("pre_tokenizer", "Bert"), HasSubstr("pre_tokenizer: the kind Bert"));
  EXPECT_THAT(with_kind("post_processor", "Roberta"),
              HasSubstr("post_processor: the kind Roberta"));
  EXPECT_THAT(with_kind("decoder", "CTC"), HasSubstr("decoder: the kind CTC"));
  EXPECT_THAT(with_kind("model", "Unigram"), HasSubstr("model: the kind Unigram"));
  EXPECT_THAT(error_after([](json& file) {
                std::swap(file["pre_tokenizer"]["pretokenizers"][0],
                          file["pre_tokenizer"]["pretokenizers"][1]);
              }),
              HasSubstr("after ByteLevel"));
  const json split = {{"type", "Split"}, {"behavior", "Isolated"}};
  const auto with_pattern = [&](const json& pattern, const char* behavior) {
    return error_of([&] {
      file_["pre_tokenizer"] = split;
      file_["pre_tokenizer"]["pattern"] = pattern;
      file_["pre_tokenizer"]["behavior"] = behavior;
      load();
    });
  };
  EXPECT_THAT(with_pattern({{"Regex", "(a"}}, "Isolated"), HasSubstr("expression (a"));
  EXPECT_THAT(with_pattern({{"Glob", "*"}}, "Isolated"), HasSubstr("neither String nor Regex"));
  EXPECT_THAT(with_pattern({{"String", "a"}}, "Eaten"), HasSubstr("behavior Eaten"));
}

TEST_F(TokenizerFile, InvalidUtf8IsTheReplacementCharacter) {
  const Tokenizer tokenizer = load();
  const auto same = [&](std::string_view damaged, std::string_view repaired) {
    EXPECT_EQ(tokenizer.encode(damaged, false), tokenizer.encode(repaired, false)) << damaged;
  };
  same(
      "a\xFF"
      "b",
      "a\uFFFDb");
  same("\xC3", "\uFFFD");                                // cut short
  same("\xE2\x82 x", "\uFFFD x");                        // one maximal subpart
  same("\xC0\xAF", "\uFFFD\uFFFD");                      // overlong
  same("\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD");            // a surrogate
  same("\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD");  // above U+10FFFF
  same("\xF0\x9F\x98<|im_end|>", "\uFFFD<|im_end|>");
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(std::string_view("a\0b", 3), false)),
            std::string("a\0b", 3));
}

TEST_F(TokenizerFile, TokensOneByOneGiveTheBytes) {
  const Tokenizer tokenizer = load();
  const std::string text = "caf\u00E9 \U0001F600 \u4E16\u754C<|im_end|>\n";
  std::string bytes;
  for (const int id : tokenizer.encode(text, false)) bytes += tokenizer.decode({id});
  EXPECT_EQ(bytes, text);
}

TEST_F(TokenizerFile, SpecialTokens) {
  const Tokenizer tokenizer = load();
  const int end = tokenizer.token_to_id("<|im_end|>");
  EXPECT_TRUE(tokenizer.is_special(end));
  EXPECT_FALSE(tokenizer.is_special(tokenizer.token_to_id("a")));
  EXPECT_THAT(tokenizer.encode("<|im_end|><|im_end|>", false), ElementsAre(end, end));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("a<|im_end|>b", false), true), "ab");
  EXPECT_THAT(error_of([&] { tokenizer.id_to_token(1 << 20); }), HasSubstr("no token of the id"));
  EXPECT_THAT(error_of([&] { tokenizer.id_to_token(-1); }), HasSubstr("no token of the id -1"));
}

TEST_F(TokenizerFile, NormalizedTokensAreNormalizedThemselves) {
  file_["normalizer"] = {{"type", "NFC"}};
  const int id = add_token({{"content", "A\u030A"}, {"normalized", true}});
  const Tokenizer tokenizer = load();
  EXPECT_THAT(tokenizer.encode("\u212B", false), ElementsAre(id));
  EXPECT_EQ(tokenizer.id_to_token(id), "\u00C5");
  EXPECT_EQ(tokenizer.vocab_size(), id + 1);
  EXPECT_THAT(error_of([&] { tokenizer.id_to_token(id + 1); }), HasSubstr("no token of the id"));
}

// `tokenizers` counts on from the vocabulary, whatever the file says.
TEST_F(TokenizerFile, IdsOfAddedTokensWithoutGaps) {
  const int id = add_token({{"content", "<A>"}});
  file_["added_tokens"].push_back({{"id", id + 1}, {"content", "<B>"}});
  std::swap(file_["added_tokens"][file_["added_tokens"].size() - 1], file_["added_tokens"][0]);
  EXPECT_THAT(load().encode("<A><B>", false), ElementsAre(id, id + 1));
  file_["added_tokens"].push_back({{"id", id + 7}, {"content", "<C>"}});
  EXPECT_THAT(error_of([&] { load(); }),
              HasSubstr(fmt::format("<C> has the id {}, but the tokenizers library gives it {}",
                                    id + 7, id + 2)));
}

// Both of them would take the other's white space; the first has it.
TEST_F(TokenizerFile, TokensOfWhiteSpaceThatWhiteSpaceBelongsTo) {
  const int id = add_token({{"content", "  "}, {"lstrip", true}, {"rstrip", true}});
  EXPECT_THAT(load().encode("    ", false), ElementsAre(id));
}

// Without a post-processor only the Llama classes of transformers add tokens.
TEST_F(TokenizerFile, BosOfTheConfiguration) {
  file_ = read_json(golden_folder() / "llama2" / "tokenizer.json");
  file_["post_processor"] = nullptr;
  const auto first_and_last = [&](const json& config) {
    write_json(folder_.path() / "tokenizer_config.json", config);
    const std::vector<int> ids = load().encode("a", true);
    return std::pair(ids.front(), ids.back());
  };
  const std::vector<int> plain = load().encode("a", true);
  const std::pair none(plain.front(), plain.back());
  json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"add_bos_token", true}};
  EXPECT_EQ(first_and_last(config), none);
  config = {{"tokenizer_class", "LlamaTokenizer"}, {"bos_token", "<s>"}};
  EXPECT_EQ(first_and_last(config), std::pair(1, none.second));
  config["add_bos_token"] = false;
  EXPECT_EQ(first_and_last(config), none);
  config["add_eos_token"] = true;
  config["eos_token"] = {{"content", "</s>"}};
  EXPECT_EQ(first_and_last(config), std::pair(none.first, 2));
  config["eos_token"] = "<none>";
  EXPECT_THAT(error_of([&] { first_and_last(config); }), HasSubstr("eos_token <none>"));
}

TEST(Unicode, CountsAndRepairsSequences) {
  EXPECT_EQ(count_invalid_utf8("plain \u00E9 \U0001F600"), 0);
  EXPECT_EQ(count_invalid_utf8("\x80\xE2\x82 \xFF"), 3);
  EXPECT_EQ(replace_invalid_utf8("\x80 \xE2\x82"), "\uFFFD \uFFFD");
}

}  // namespace
}  // namespace qnpu
