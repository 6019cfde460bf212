#include "io/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/status.h"
#include "io/files.h"
#include "io/test_folder.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
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
  json prompt_or_null(const std::vector<ChatMessage>& messages) {
    try {
      return chat_prompt(folder_.path(), messages);
    } catch (const Error&) {
      return nullptr;
    }
  }
  TestFolder folder_;
};

// Prompts equal those of transformers (scripts/make_chat_goldens.py).
TEST_F(ChatTemplateTest, Goldens) {
  const json golden = read_json(fs::path(QNPU_SOURCE_DIR) / "testdata/chat/chat.json");
  for (const auto& [family, value] : golden["cases"].items()) {
    config({{"chat_template", value["template"]},
            {"bos_token", "<|begin_of_text|>"},
            {"eos_token", {{"content", "</s>"}}}});
    for (const auto& [chat, messages] : golden["chats"].items()) {
      EXPECT_EQ(prompt_or_null(messages_of(messages)), value["prompts"][chat])
          << family << ", " << chat;
    }
  }
}

TEST_F(ChatTemplateTest, PiecesOfJinja) {
  const json golden = read_json(fs::path(QNPU_SOURCE_DIR) / "testdata/chat/jinja.json");
  const auto messages = messages_of(golden["messages"]);
  const auto text_of = [&](const json& chat_template) {
    config({{"chat_template", chat_template},
            {"bos_token", "<|begin_of_text|>"},
            {"eos_token", "</s>"}});
    return prompt_or_null(messages);
  };
  for (const json& entry : golden["texts"]) EXPECT_EQ(text_of(entry[0]), entry[1]) << entry[0];
  for (const json& unknown : golden["unsupported"]) EXPECT_EQ(text_of(unknown), nullptr) << unknown;
}

// A template comes with a checkpoint of unknown origin.
TEST_F(ChatTemplateTest, TemplatesThatDoNotEnd) {
  std::string deep, loops = "{{ x }}";
  for (int i = 0; i < 5000; ++i) deep += "(";
  for (int i = 0; i < 5; ++i) loops = "{% for i in range(1000) %}" + loops + "{% endfor %}";
  for (const std::string& text :
       {"{{ " + deep, loops, std::string("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
        "{{ " + std::string(60000, '-') + "1 }}", std::string("{{ range(1000000000)|length }}"),
        "{{ 1" + std::string(2000, '+') + "1 }}"}) {
    config({{"chat_template", text}});
    EXPECT_THAT(error(), HasSubstr("chat template")) << text.substr(0, 80);
  }
}

TEST_F(ChatTemplateTest, FileOfItsOwnAndNamedTemplates) {
  config({{"chat_template",
           {{{"name", "tool_use"}, {"template", "x"}},
            {{"name", "default"}, {"template", "{{ messages[0].content }}"}}}}});
  EXPECT_EQ(chat_prompt(folder_.path(), {{"user", "a"}}), "a");
  write_file(folder_.path() / "chat_template.jinja", "{{ messages[0].role }}");
  EXPECT_EQ(chat_prompt(folder_.path(), {{"user", "a"}}), "user");
}

TEST_F(ChatTemplateTest, Errors) {
  EXPECT_THAT(error(), HasSubstr("no chat template"));
  config({{"bos_token", "<s>"}});
  EXPECT_THAT(error(), HasSubstr("no chat template"));
  config({{"chat_template", "\n{% import x %}"}});
  EXPECT_THAT(error(), AllOf(HasSubstr(folder_.path().string()), HasSubstr("line 2: {% import %}"),
                             HasSubstr("plain prompt")));
  config({{"chat_template", "\n\n{{ 1 + }}"}});
  EXPECT_THAT(error(), HasSubstr("line 3: a value is expected, not the end of the part"));
  config({{"chat_template", "{% for loop in messages %}{% endfor %}"}});
  EXPECT_THAT(error(), HasSubstr("line 1: 'loop' is the loop itself"));
  config({{"chat_template", "{{ strftime_now('%Y') }}"}});
  EXPECT_THAT(error(), HasSubstr("today's date"));
  config({{"chat_template", "{{ raise_exception('no system') }}"}});
  EXPECT_THAT(error(), AllOf(HasSubstr("line 1"), HasSubstr("no system")));
  config({{"chat_template", "x"}});
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
