// Manual pages from the program's own option tables.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace qnpu {

std::string program_man_page(const CLI::App& app);                              // qnpu.1
std::string command_man_page(const CLI::App& app, const std::string& command);  // qnpu-eval.1

}  // namespace qnpu
