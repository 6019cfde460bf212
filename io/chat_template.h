// Chat prompts, made by the checkpoint's own template (io/jinja/render.h).
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace qnpu {

struct JinjaStatement;

struct ChatMessage {
  std::string role;  // "system", "user" or "assistant"
  std::string content;
};

// A folder's template, read once.
struct ChatTemplate {
  std::shared_ptr<const std::vector<JinjaStatement>> statements;
  std::map<std::string, std::string> special_tokens;  // by the name that a template calls them
};

// From chat_template.jinja or from `chat_template` in tokenizer_config.json, there of several the
// one named "default". Throws Error if there is none, or if it holds what is not supported.
ChatTemplate load_chat_template(const std::filesystem::path& folder);

// The prompt that `apply_chat_template(messages, add_generation_prompt=True)` gives, special tokens
// written out, BOS too: encode it with add_special_tokens = false. A prompt does not depend on the
// day: a template that can do without today's date does. Throws Error if there is no message, one
// of another role, or if the template refuses the messages or does what is not supported.
std::string chat_prompt(const ChatTemplate& chat_template,
                        const std::vector<ChatMessage>& messages);

// The same with the folder's template; errors of both.
std::string chat_prompt(const std::filesystem::path& folder,
                        const std::vector<ChatMessage>& messages);

// End tokens from generation_config.json, else config.json (a number or a list); may be empty.
std::vector<int> end_tokens(const std::filesystem::path& folder);

}  // namespace qnpu
