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

// The prompt that `apply_chat_template(messages, add_generation_prompt=True)` gives, special tokens
// written out, BOS too: encode it with add_special_tokens = false. Where a template asks for
// today's date it gets the template's own default date. The family is found from `chat_template` in
// tokenizer_config.json or from chat_template.jinja. Throws Error if there is no template or it is
// of no known family.
std::string chat_prompt(const std::filesystem::path& folder,
                        const std::vector<ChatMessage>& messages);

// End tokens from generation_config.json, else config.json (a number or a list); may be empty.
std::vector<int> end_tokens(const std::filesystem::path& folder);

}  // namespace qnpu
