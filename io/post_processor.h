// The `post_processor` of a tokenizer.json: which special tokens are put around a text.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "io/json_part.h"

namespace qnpu {

struct SpecialTokens {
  std::vector<int> before, after;
};

using TokenId = std::function<int(const std::string&)>;  // -1 if unknown

// Error: an unknown kind, a template that is not "tokens, text, tokens".
SpecialTokens read_post_processor(const JsonPart& part);

// For Llama-family files without a post-processor, the rule is in tokenizer_config.json
// (add_bos_token, add_eos_token); every other family then adds nothing.
SpecialTokens special_tokens_of_config(const std::filesystem::path& file, const TokenId& id_of);

}  // namespace qnpu
