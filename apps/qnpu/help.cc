#include "apps/qnpu/help.h"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "apps/qnpu/command_table.h"

namespace qnpu {
namespace {

constexpr size_t kWidth = 80;
constexpr size_t kIndent = 22;  // of descriptions

// Words in lines of kWidth, all but the first indented.
std::string wrapped(const std::string& text, size_t indent) {
  std::istringstream words(text);
  std::string result;
  size_t column = indent;
  for (std::string word; words >> word; column += word.size()) {
    const bool fits = result.empty() || column + 1 + word.size() <= kWidth;
    if (!fits) {
      result += fmt::format("\n{:{}}", "", indent);
      column = indent;
    } else if (!result.empty()) {
      result += ' ';
      ++column;
    }
    result += word;
  }
  return result;
}

std::string option_lines(const OptionEntry& option) {
  std::string name = "  " + option.usage();
  if (option.required && !option.positional) name += " *";
  const bool beside = name.size() + 2 <= kIndent;
  if (!beside) name += fmt::format("\n{:{}}", "", kIndent);
  return fmt::format("{:<{}}{}\n", name, kIndent, wrapped(option.description, kIndent));
}

}  // namespace

std::string program_help(const CLI::App& app) {
  std::string text = app.get_description() + "\n\n";
  std::istringstream examples(app.get_footer());
  for (std::string line; std::getline(examples, line);) text += "  " + line + "\n";
  std::string group;
  for (const CommandEntry& command : command_table(app)) {
    const bool first = command.group != group;
    group = command.group;
    text += fmt::format("{}{:<9} {:<10}  {}\n", first ? "\n" : "", first ? group : "", command.name,
                        command.summary);
  }
  return text + "\nqnpu COMMAND --help shows examples and options, qnpu man the manual.\n";
}

std::string command_help(const CLI::App& app) {
  const CommandEntry command = command_entry(app);
  std::string text = wrapped(command.summary, 0) + "\n\n";
  for (const std::string& example : command.examples) text += "  " + example + "\n";
  text += fmt::format("{}usage: {}\n", command.examples.empty() ? "" : "\n",
                      wrapped(command.usage(), 9));
  for (const std::string& group : command.groups()) {
    text += fmt::format("\n{}:\n", group);
    for (const OptionEntry& option : command.options) {
      if (option.group == group) text += option_lines(option);
    }
  }
  const bool required =
      std::any_of(command.options.begin(), command.options.end(),
                  [](const OptionEntry& o) { return o.required && !o.positional; });
  return text + (required ? "\n* needed\n" : "");
}

void set_help(CLI::App& app) {
  app.formatter_fn([](const CLI::App* shown, const std::string&, CLI::AppFormatMode) {
    return shown->get_parent() == nullptr ? program_help(*shown) : command_help(*shown);
  });
}

}  // namespace qnpu
