#include "apps/qnpu/command_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <regex>
#include <sstream>

namespace qnpu {
namespace {

// CLI11 tells a value's type and what is checked about it in one text: "TEXT:{cpu,cuda}",
// "INT:INT in [1 - 256]".
void describe_value(const std::string& type, OptionEntry& entry) {
  entry.value = type.substr(0, type.find(':'));
  if (entry.value == "INT" || entry.value == "UINT") entry.value = "N";
  if (entry.value == "FLOAT") entry.value = "X";
  std::smatch found;
  if (std::regex_search(type, found, std::regex(R"(\{(.*)\})"))) {
    std::istringstream words(found[1]);
    for (std::string word; std::getline(words, word, ',');) entry.choices.push_back(word);
    entry.value = fmt::format("{}", fmt::join(entry.choices, "|"));
  }
  if (std::regex_search(type, found, std::regex(R"( in \[(\S+) - (\S+)\])"))) {
    entry.description += fmt::format(" ({} to {})", found[1].str(), found[2].str());
  }
}

std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

std::string default_of(const CLI::Option& option) {
  std::string text = option.get_default_str();
  if (text.size() > 1 && text.front() == '[') text = text.substr(1, text.size() - 2);  // of a list
  return text;
}

OptionEntry option_entry(const CLI::Option& option) {
  OptionEntry entry;
  entry.positional = option.get_positional();
  entry.name = option.get_name(entry.positional, false);
  if (const size_t comma = entry.name.rfind(','); comma != std::string::npos) {
    entry.name.erase(0, comma + 1);  // "-h,--help"
  }
  // "--no-sites{false}", a flag that turns something off
  entry.name = entry.name.substr(0, entry.name.find('{'));
  entry.description = option.get_description();
  entry.group = option.get_group();
  entry.required = option.get_required();
  entry.many = option.get_expected_max() > 1;
  if (option.get_type_size() == 0) return entry;
  describe_value(option.get_type_name(), entry);
  const std::string given = default_of(option);
  if (!given.empty()) entry.description += fmt::format(" (default: {})", given);
  return entry;
}

}  // namespace

std::string OptionEntry::usage() const {
  if (!positional) return value.empty() ? name : fmt::format("{} {}", name, value);
  const std::string word = choices.empty() ? upper(name) : value;
  return required ? word : fmt::format("[{}]", word);
}

std::vector<std::string> CommandEntry::groups() const {
  std::vector<std::string> names;
  const auto add = [&](const std::string& group) {
    if (std::find(names.begin(), names.end(), group) == names.end()) names.push_back(group);
  };
  const auto is_common = [](const std::string& group) {
    return group == kMachineGroup || group == kOutputGroup;
  };
  for (const OptionEntry& option : options) {
    if (!is_common(option.group)) add(option.group);
  }
  for (const OptionEntry& option : options) {
    if (option.group == kMachineGroup) add(option.group);
  }
  add(kOutputGroup);
  return names;
}

std::string CommandEntry::usage() const {
  std::string text = fmt::format("qnpu {}", name);
  for (const OptionEntry& option : options) {
    if (option.positional || option.required) text.append(" ").append(option.usage());
  }
  return text.append(" [OPTION...]");
}

CommandEntry command_entry(const CLI::App& command) {
  CommandEntry entry{command.get_name(), command.get_description(), command.get_group(), {}, {}};
  std::istringstream examples(command.get_footer());
  for (std::string line; std::getline(examples, line);) entry.examples.push_back(line);
  for (const CLI::Option* option : command.get_options({})) {
    if (option == command.get_help_ptr() || option->get_group().empty()) continue;
    entry.options.push_back(option_entry(*option));
    if (entry.options.back().positional) entry.options.back().group = "Arguments";
  }
  if (const CLI::Option* help = command.get_help_ptr()) {
    entry.options.push_back(option_entry(*help));
    entry.options.back().group = kOutputGroup;
  }
  return entry;
}

std::vector<CommandEntry> command_table(const CLI::App& app) {
  std::vector<CommandEntry> table;
  for (const CLI::App* command : app.get_subcommands({})) {
    if (!command->get_group().empty()) table.push_back(command_entry(*command));
  }
  return table;
}

}  // namespace qnpu
