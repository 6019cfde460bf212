// Scripts that complete qnpu's command lines in a shell, from the program's own option tables.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace qnpu {

std::string bash_completion(const CLI::App& app);
std::string zsh_completion(const CLI::App& app);
std::string fish_completion(const CLI::App& app);

}  // namespace qnpu
