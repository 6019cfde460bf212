// Chat prompts for the families supported (ChatML, Llama 3, Qwen), recognised from the checkpoint's
// own template text.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace qnpu {

struct ChatMessage {
  std::string role;  // "system", "user" or "assistant"
  std::string content;
};

// A folder's template, read once.
struct ChatTemplate {
  std::filesystem::path folder;
  std::string text;
  std::string bos;  // as written in a prompt; of the families that write one
};

// From `chat_template` in tokenizer_config.json or from chat_template.jinja. Throws Error if there
// is none, or if it is of no known family.
ChatTemplate load_chat_template(const std::filesystem::path& folder);

// The prompt that `apply_chat_template(messages, add_generation_prompt=True)` gives, special tokens
// written out, BOS too: encode it with add_special_tokens = false. Where a template asks for
// today's date it gets the template's own default date. Throws Error if there is no message, or one
// of another role.
std::string chat_prompt(const ChatTemplate& chat_template,
                        const std::vector<ChatMessage>& messages);

// The same with the folder's template; errors of both.
std::string chat_prompt(const std::filesystem::path& folder,
                        const std::vector<ChatMessage>& messages);

// End tokens from generation_config.json, else config.json (a number or a list); may be empty.
std::vector<int> end_tokens(const std::filesystem::path& folder);

}  // namespace qnpu
