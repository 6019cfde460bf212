// What the program's commands and options say about themselves, read from CLI11's own tables: help,
// man pages and completions are all written from this, and so cannot name what is not there.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace qnpu {

// Words for values in help, which also say how a shell completes them.
inline constexpr const char* kFolder = "DIR";
inline constexpr const char* kFile = "FILE";
inline constexpr const char* kRecipe = "RECIPE";
inline constexpr const char* kTargets = "CHIPS";  // with commas
inline constexpr const char* kCommand = "COMMAND";

// Groups of options that many commands have.
inline constexpr const char* kOutputGroup = "Output";
inline constexpr const char* kMachineGroup = "Machine";
inline constexpr const char* kGraphGroup = "Graphs";

// Groups of commands, in the order of `qnpu --help`.
inline constexpr const char* kMake = "Make";
inline constexpr const char* kJudge = "Judge";
inline constexpr const char* kUse = "Use";
inline constexpr const char* kNpu = "NPU";
inline constexpr const char* kShell = "Shell";

struct OptionEntry {
  std::string name;                  // "--model"; of a positional "artifact"
  std::string value;                 // "DIR", "N"; empty: a flag
  std::vector<std::string> choices;  // those that there are
  std::string description;           // with range and default
  std::string group;
  bool positional = false;
  bool required = false;
  bool many = false;  // takes several values

  std::string usage() const;  // "--model DIR"
};

struct CommandEntry {
  std::string name;
  std::string summary;
  std::string group;
  std::vector<std::string> examples;  // command lines
  std::vector<OptionEntry> options;   // in the order of their declaration, --help last

  std::vector<std::string> groups() const;  // of options; those that many commands have come last
  std::string usage() const;                // "qnpu eval DIR [options]"
};

CommandEntry command_entry(const CLI::App& command);
std::vector<CommandEntry> command_table(const CLI::App& app);  // without hidden commands

}  // namespace qnpu
