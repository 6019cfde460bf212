#include "io/chat_template.h"

#include <array>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "io/files.h"
#include "io/jinja/render.h"
#include "io/json_part.h"

namespace qnpu {

namespace {

namespace fs = std::filesystem;

// --- Templates in a folder

// The one named "default" of a list, or the only one.
std::string chosen_template(const JsonPart& config) {
  if (!config.at("chat_template").value().is_array()) return config.text("chat_template");
  for (const JsonPart& entry : config.list("chat_template")) {
    if (entry.text("name") == "default") return entry.text("template");
  }
  config.fail_here("chat_template has no entry \"default\"");
}

std::string template_text(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(folder / "chat_template.jinja", error)) {
    return read_file(folder / "chat_template.jinja");
  }
  const fs::path file = folder / "tokenizer_config.json";
  if (fs::exists(file, error)) {
    const nlohmann::json json = read_json(file);
    const JsonPart config(json, file.string());
    if (config.has("chat_template")) return chosen_template(config);
  }
  fail(
      "{} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json): "
      "it is no chat model, give a plain prompt",
      folder.string());
}

// The special tokens that a file names, as strings or as {"content": "..."}.
void add_special_tokens(const fs::path& file, std::map<std::string, std::string>& tokens) {
  constexpr std::array kNames = {"bos_token", "eos_token", "unk_token", "pad_token",
                                 "sep_token", "cls_token", "mask_token"};
  std::error_code error;
  if (!fs::exists(file, error)) return;
  const nlohmann::json json = read_json(file);
  const JsonPart config(json, file.string());
  for (const char* name : kNames) {
    if (!config.has(name)) continue;
    const bool is_object = config.at(name).value().is_object();
    tokens.emplace(name, is_object ? config.at(name).text("content") : config.text(name));
  }
}

// What a template is given; tools and documents are there, but none.
JinjaValue variables_of(const ChatTemplate& chat_template,
                        const std::vector<ChatMessage>& messages) {
  JinjaValue variables = chat_template.special_tokens;
  JinjaValue& list = variables["messages"] = JinjaValue::array();
  for (const ChatMessage& message : messages) {
    list.push_back({{"role", message.role}, {"content", message.content}});
  }
  variables["tools"] = nullptr;
  variables["documents"] = nullptr;
  variables["add_generation_prompt"] = true;
  return variables;
}

}  // namespace

ChatTemplate load_chat_template(const fs::path& folder) {
  const std::string text = template_text(folder);
  ChatTemplate result;
  try {
    result.statements = std::make_shared<const std::vector<JinjaStatement>>(parse_jinja(text));
  } catch (const Error& error) {
    fail("the chat template of {}, {}; give a plain prompt with the special tokens written out",
         folder.string(), error.what());
  }
  add_special_tokens(folder / "tokenizer_config.json", result.special_tokens);
  add_special_tokens(folder / "special_tokens_map.json", result.special_tokens);
  return result;
}

std::string chat_prompt(const ChatTemplate& chat_template,
                        const std::vector<ChatMessage>& messages) {
  if (messages.empty()) fail("there is no message to make a chat prompt of; give at least one");
  for (const ChatMessage& message : messages) {
    if (message.role != "system" && message.role != "user" && message.role != "assistant") {
      fail("the role {} of a chat message is unknown; use system, user or assistant", message.role);
    }
  }
  try {
    return render_jinja(*chat_template.statements, variables_of(chat_template, messages));
  } catch (const Error& error) {
    fail("the chat template, {}; change the messages, or give a plain prompt", error.what());
  }
}

std::string chat_prompt(const fs::path& folder, const std::vector<ChatMessage>& messages) {
  return chat_prompt(load_chat_template(folder), messages);
}

std::vector<int> end_tokens(const fs::path& folder) {
  for (const char* name : {"generation_config.json", "config.json"}) {
    std::error_code error;
    const fs::path file = folder / name;
    if (!fs::exists(file, error)) continue;
    const nlohmann::json json = read_json(file);
    const JsonPart config(json, file.string());
    if (!config.has("eos_token_id")) continue;
    const nlohmann::json& ids = config.at("eos_token_id").value();
    std::vector<int> result;
    for (const auto& id : ids.is_array() ? ids : nlohmann::json::array({ids})) {
      if (!id.is_number_unsigned()) config.fail_here("eos_token_id is no id or list of ids");
      result.push_back(id);
    }
    return result;
  }
  return {};
}

}  // namespace qnpu
