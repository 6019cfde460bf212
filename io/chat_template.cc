// No template language is interpreted: the few families differ in little, and what differs (a
// default system message, a date) is read from the template's text.
#include "io/chat_template.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/status.h"
#include "io/files.h"
#include "io/json_part.h"

namespace qnpu {

namespace {

namespace fs = std::filesystem;
using Messages = std::vector<ChatMessage>;

bool contains(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  while (true) {
    const size_t at = text.find(from);
    result += text.substr(0, at);
    if (at == text.npos) return result;
    result += to;
    text.remove_prefix(at + from.size());
  }
}

// Without `characters` at the ends; the default is white space.
std::string strip(std::string_view text, std::string_view characters = " \t\n\r\f\v") {
  const size_t begin = text.find_first_not_of(characters);
  if (begin == text.npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(characters) - begin + 1));
}

// The first constant text between `before` and `after`. Where a quotation mark comes first, a
// variable stands there, not a constant.
std::optional<std::string> constant_between(std::string_view text, std::string_view before,
                                            std::string_view after) {
  for (size_t at = text.find(before); at != text.npos; at = text.find(before, at)) {
    at += before.size();
    const size_t end = text.find(after, at);
    if (end == text.npos) return std::nullopt;
    if (text[at] == '\'' || text[at] == '"') continue;
    const std::string constant(text.substr(at, end - at));
    return replaced(replaced(constant, "\\'", "'"), "\\\"", "\"");
  }
  return std::nullopt;
}

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

std::string bos_token(const fs::path& folder, const char* otherwise) {
  std::error_code error;
  if (!fs::exists(folder / "tokenizer_config.json", error)) return otherwise;
  const nlohmann::json json = read_json(folder / "tokenizer_config.json");
  const JsonPart config(json, (folder / "tokenizer_config.json").string());
  if (!config.has("bos_token")) return otherwise;
  const bool is_object = config.at("bos_token").value().is_object();
  return is_object ? config.at("bos_token").text("content") : config.text("bos_token");
}

// --- ChatML: SmolLM2, Qwen2, Qwen2.5, Qwen3

std::string chatml_message(const std::string& role, const std::string& content) {
  return fmt::format("<|im_start|>{}\n{}<|im_end|>\n", role, content);
}

// An answer of a model that thinks: what it thought is not repeated, except in an answer after the
// last question, which is still being worked on.
std::string without_thoughts(const std::string& content, bool after_question, bool last) {
  const std::string_view end = "</think>";
  std::string thoughts, answer = content;
  if (contains(content, end)) {
    thoughts = content.substr(0, content.find(end));
    if (const size_t begin = thoughts.rfind("<think>"); begin != thoughts.npos) {
      thoughts.erase(0, begin + 7);
    }
    thoughts = strip(thoughts, "\n");
    answer = content.substr(content.rfind(end) + end.size());
    answer.erase(0, std::min(answer.find_first_not_of('\n'), answer.size()));
  }
  if (!after_question || (!last && thoughts.empty())) return answer;
  answer.erase(0, std::min(answer.find_first_not_of('\n'), answer.size()));
  return fmt::format("<think>\n{}\n</think>\n\n{}", thoughts, answer);
}

bool is_question(const ChatMessage& message) {
  const bool is_tool = message.content.starts_with("<tool_response>") &&
                       message.content.ends_with("</tool_response>");
  return message.role == "user" && !is_tool;
}

// Whether the template takes the white space around a message away: "content'] | trim" and the
// like.
bool trims(std::string text) {
  text.erase(std::remove(text.begin(), text.end(), ' '), text.end());
  return contains(text, "content']|trim") || contains(text, "content|trim") ||
         contains(text, "content'].strip()") || contains(text, "content.strip()");
}

// Whether something is said before the first message: "{{ bos_token }}".
bool begins_with_bos(const std::string& text) {
  return contains(text.substr(0, text.find("<|im_start|>")), "bos_token");
}

std::string chatml_prompt(const std::string& text, const Messages& messages,
                          const std::string& bos) {
  const bool trimmed = trims(text);
  const auto default_system = constant_between(text, "<|im_start|>system\n", "<|im_end|>");
  const bool thinks = contains(text, "</think>");
  const auto question = std::find_if(messages.rbegin(), messages.rend(), is_question).base();
  std::string prompt = bos;
  if (default_system && messages[0].role != "system") {
    prompt += chatml_message("system", *default_system);
  }
  for (auto message = messages.begin(); message != messages.end(); ++message) {
    const bool answers = thinks && message->role == "assistant";
    // Where nothing is asked, no answer comes after the question.
    const bool after = question != messages.begin() && message >= question;
    const std::string content = trimmed ? strip(message->content) : message->content;
    const bool last = message + 1 == messages.end();
    prompt +=
        chatml_message(message->role, answers ? without_thoughts(content, after, last) : content);
  }
  return prompt + "<|im_start|>assistant\n";
}

// --- Llama 3, 3.1, 3.2

std::string llama3_message(const std::string& role, const std::string& content) {
  return fmt::format("<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>", role, content);
}

// From 3.1 on the system part begins with two dates. Today's is the template's own default: a
// prompt must not depend on the day.
std::string llama3_dates(const std::string& text) {
  const auto cutting = constant_between(text, "Cutting Knowledge Date: ", "\n");
  const auto today = constant_between(text, "set date_string = \"", "\"");
  if (!cutting || !today) return "";
  return fmt::format("Cutting Knowledge Date: {}\nToday Date: {}\n\n", *cutting, *today);
}

std::string llama3_prompt(const std::string& text, const Messages& messages,
                          const std::string& bos) {
  const std::string dates = llama3_dates(text);
  std::string prompt = bos;
  size_t first = 0;
  if (!dates.empty()) {
    first = messages[0].role == "system";
    prompt += llama3_message("system", dates + (first ? strip(messages[0].content) : ""));
  }
  for (size_t i = first; i < messages.size(); ++i) {
    prompt += llama3_message(messages[i].role, strip(messages[i].content));
  }
  return prompt + "<|start_header_id|>assistant<|end_header_id|>\n\n";
}

// Signs of templates that look like ChatML but say more than is known here.
bool is_plain_chatml(const std::string& text) {
  return contains(text, "<|im_start|>") && !contains(text, "<|im_sep|>") &&
         !contains(text, "strftime_now") && !contains(text, "<|im_start|>assistant\n<think>");
}

bool is_llama3(const std::string& text) {
  return contains(text, "<|start_header_id|>") && contains(text, "<|eot_id|>");
}

}  // namespace

ChatTemplate load_chat_template(const fs::path& folder) {
  // Templates write a line break as \n or as itself.
  ChatTemplate result{folder, replaced(template_text(folder), "\\n", "\n"), ""};
  if (is_plain_chatml(result.text)) {
    if (begins_with_bos(result.text)) result.bos = bos_token(folder, "");
    return result;
  }
  if (!is_llama3(result.text)) {
    fail(
        "the chat template of {} is of no known family (ChatML, Qwen, Llama 3); give a plain "
        "prompt with the special tokens written out",
        folder.string());
  }
  result.bos = bos_token(folder, "<|begin_of_text|>");
  return result;
}

std::string chat_prompt(const ChatTemplate& chat_template, const Messages& messages) {
  if (messages.empty()) fail("there is no message to make a chat prompt of; give at least one");
  for (const ChatMessage& message : messages) {
    if (message.role != "system" && message.role != "user" && message.role != "assistant") {
      fail("the role {} of a chat message is unknown; use system, user or assistant", message.role);
    }
  }
  if (is_plain_chatml(chat_template.text)) {
    return chatml_prompt(chat_template.text, messages, chat_template.bos);
  }
  return llama3_prompt(chat_template.text, messages, chat_template.bos);
}

std::string chat_prompt(const fs::path& folder, const Messages& messages) {
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
