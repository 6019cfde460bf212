// Where the program lies, and what it finds from there.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

namespace qnpu {

// Of those that the caller has closed. Files that are opened later would get their numbers, and
// what is printed would end up inside: now it fails, as it does on a closed stream.
void hold_standard_streams();

// On standard error, if anybody can read it there; nothing fails because nobody can.
template <typename... T>
void tell(fmt::format_string<T...> format, T&&... values) {
  std::fputs(fmt::format(format, std::forward<T>(values)...).c_str(), stderr);
}

// The arguments as given, kept by main for the hand-over to qnpu-learn.
void remember_arguments(int argc, char** argv);

char** program_arguments();  // as remembered, for another process of this program

// Replaces this process by `qnpu-learn`, which lies in the same folder, with the same arguments.
// Error if there is none: the build has no learning tools.
[[noreturn]] void become_learning_program();

// `name` is the name of a recipe that comes with the program, or a path ending in .json. Error with
// the names known, and the nearest of them, if there is none.
std::filesystem::path find_recipe(const std::string& name);

// The same for the chips of targets/: "SM8750".
std::filesystem::path find_target(const std::string& name);

std::vector<std::string> recipe_names();  // that find_recipe() knows
std::vector<std::string> target_names();

// A file of the program, such as "npu/htp/compile.py": in an installation's share/quantnpu, or in
// the sources. Error if it is in neither.
std::filesystem::path find_shared(const std::string& file);

// The one of `words` that needs fewest edits to become `word`; empty if none is near.
std::string nearest_word(const std::string& word, const std::vector<std::string>& words);

// Error if `out`, which the command is to write, is one of the files that it reads.
void check_is_no_input(const std::filesystem::path& out,
                       const std::vector<std::filesystem::path>& inputs);

void check_output();  // Error if something could not be written to standard output
void print_json(const nlohmann::json& json);  // one object on standard output

}  // namespace qnpu
