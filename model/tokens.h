// The one function that decides which tokens a model sees for a text: calibration, evaluation and
// generation all call it, so that BOS and prefixes can never differ between them.
#pragma once

#include <string_view>
#include <vector>

#include "io/tokenizer.h"

namespace qnpu {

// Tokens of a document or prompt. BOS is added exactly if the tokenizer's own post-processing does.
inline std::vector<int> token_sequence(const Tokenizer& tokenizer, std::string_view text) {
  return tokenizer.encode(text, /*add_special_tokens=*/true);
}

}  // namespace qnpu
