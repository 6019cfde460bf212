// The `decoder` of a tokenizer.json: tokens back to text.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "io/json_part.h"

namespace qnpu {

// Rewrites the list of tokens; what is left at the end is joined.
using TokenDecoder = std::function<void(std::vector<std::string>&)>;

// Error: an unknown kind.
TokenDecoder make_token_decoder(const JsonPart& part);

}  // namespace qnpu
