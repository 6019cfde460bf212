// The files of a checkpoint that tell how its text becomes tokens, and where generation ends.
#pragma once

#include <filesystem>

namespace qnpu {

// Copies those that there are.
void copy_tokenizer(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace qnpu
