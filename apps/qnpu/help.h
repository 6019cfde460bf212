// `qnpu --help` and `qnpu COMMAND --help`: examples first.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace qnpu {

std::string program_help(const CLI::App& app);  // one screen of 80 columns
std::string command_help(const CLI::App& command);

// Has CLI11 print these.
void set_help(CLI::App& app);

}  // namespace qnpu
