// The `normalizer` of a tokenizer.json: what happens to text before it is split.
#pragma once

#include <functional>
#include <string>

#include "io/json_part.h"

namespace qnpu {

// Valid UTF-8 in and out.
using Normalizer = std::function<std::string(std::string)>;

// Error: an unknown kind.
Normalizer make_normalizer(const JsonPart& part);

}  // namespace qnpu
