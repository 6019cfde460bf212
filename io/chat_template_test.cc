#include "io/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "io/files.h"
#include "io/test_folder.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<ChatMessage> messages_of(const json& chat) {
  std::vector<ChatMessage> messages;
  for (const auto& message : chat) messages.push_back({message["role"], message["content"]});
  return messages;
}

class ChatTemplateTest : public testing::Test {
 protected:
  void config(const json& value) { write_json(folder_.path() / "tokenizer_config.json", value); }
  std::string error(const std::vector<ChatMessage>& messages = {{"user", "a"}}) {
    return error_of([&] { chat_prompt(folder_.path(), messages); });
  }
  TestFolder folder_;
};

// Prompts equal those of transformers (scripts/make_chat_goldens.py).
TEST_F(ChatTemplateTest, Goldens) {
  const json golden = read_json(fs::path(QNPU_SOURCE_DIR) / "testdata/chat/chat.json");
  for (const auto& [family, value] : golden["cases"].items()) {
    config({{"chat_template", value["template"]}, {"bos_token", "<|begin_of_text|>"}});
    for (const auto& [chat, messages] : golden["chats"].items()) {
      EXPECT_EQ(chat_prompt(folder_.path(), messages_of(messages)),
                value["prompts"][chat].get<std::string>())
          << family << ", " << chat;
    }
  }
}

TEST_F(ChatTemplateTest, FileOfItsOwnAndNamedTemplates) {
  config({{"chat_template",
           {{{"name", "tool_use"}, {"template", "x"}},
            {{"name", "default"}, {"template", "<|im_start|>"}}}}});
  const std::string prompt = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n";
  EXPECT_EQ(chat_prompt(folder_.path(), {{"user", "a"}}), prompt);
  write_file(folder_.path() / "chat_template.jinja", "'<|im_start|>system\\nS<|im_end|>'");
  EXPECT_EQ(chat_prompt(folder_.path(), {{"user", "a"}}),
            "<|im_start|>system\nS<|im_end|>\n" + prompt);
}

TEST_F(ChatTemplateTest, Errors) {
  EXPECT_THAT(error(), HasSubstr("no chat template"));
  config({{"bos_token", "<s>"}});
  EXPECT_THAT(error(), HasSubstr("no chat template"));
  for (const char* other : {"[INST]", "<|im_start|>{{ strftime_now() }}", "<|im_start|><|im_sep|>",
                            "<|im_start|>assistant\\n<think>\\n"}) {
    config({{"chat_template", other}});
    EXPECT_THAT(error(), HasSubstr("no known family")) << other;
  }
  config({{"chat_template", "<|im_start|>"}});
  EXPECT_THAT(error({}), HasSubstr("no message"));
  EXPECT_THAT(error({{"tool", "a"}}), HasSubstr("role tool"));
  config({{"chat_template", json::array()}});
  EXPECT_THAT(error(), HasSubstr("no entry \"default\""));
}

TEST_F(ChatTemplateTest, EndTokens) {
  EXPECT_TRUE(end_tokens(folder_.path()).empty());
  write_json(folder_.path() / "config.json", {{"eos_token_id", 2}});
  EXPECT_THAT(end_tokens(folder_.path()), ElementsAre(2));
  write_json(folder_.path() / "generation_config.json", {{"eos_token_id", {5, 7}}});
  EXPECT_THAT(end_tokens(folder_.path()), ElementsAre(5, 7));
  write_json(folder_.path() / "generation_config.json", {{"eos_token_id", nullptr}});
  EXPECT_THAT(end_tokens(folder_.path()), ElementsAre(2));
  write_json(folder_.path() / "config.json", {{"eos_token_id", "x"}});
  EXPECT_THAT(error_of([&] { end_tokens(folder_.path()); }), HasSubstr("eos_token_id"));
}

}  // namespace
}  // namespace qnpu
