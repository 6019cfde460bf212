#include "apps/qnpu/completion.h"

#include <fmt/format.h>

#include "apps/qnpu/command_table.h"
#include "apps/qnpu/program.h"

namespace qnpu {
namespace {

std::string joined(const std::vector<std::string>& words) {
  return fmt::format("{}", fmt::join(words, " "));
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CommandEntry& command : command_table(app)) names.push_back(command.name);
  return names;
}

// For the inside of a word in single quotes.
std::string shell_quoted(const std::string& text) {
  std::string result;
  for (const char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result;
}

// What completes a value, as the helpers of each shell's script are called.
std::string bash_value(const OptionEntry& option, const CLI::App& app) {
  if (!option.choices.empty()) return fmt::format("_qnpu_words '{}'", joined(option.choices));
  if (option.value == kFolder) return "_qnpu_folders";
  if (option.value == kFile) return "_qnpu_files";
  if (option.value == kRecipe) return "_qnpu_recipes";
  if (option.value == kTargets) return "_qnpu_chips";
  if (option.value == kCommand) return fmt::format("_qnpu_words '{}'", joined(command_names(app)));
  return ":";
}

constexpr const char* kBashHelpers = R"(# Completes qnpu in bash; written by `qnpu completion bash`.
_qnpu_words() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur"); }
_qnpu_paths() {
  compopt -o filenames 2>/dev/null
  mapfile -t COMPREPLY < <(compgen "$@" -- "$cur")
}
_qnpu_files() { _qnpu_paths -f; }
_qnpu_folders() { _qnpu_paths -d; }
)";

constexpr const char* kBashMain = R"(
_qnpu() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
  COMPREPLY=()
  if [[ $cur == = ]]; then # bash cuts --to=onnx into three words
    cur=
  elif [[ $prev == = ]]; then
    prev=${COMP_WORDS[COMP_CWORD - 2]}
  fi
  if ((COMP_CWORD == 1)); then
    _qnpu_words "$_qnpu_commands --help --version"
    return
  fi
  case ${COMP_WORDS[1]} in
)";

std::string bash_command(const CommandEntry& command, const CLI::App& app) {
  std::string values, flags, positional = ":";
  for (const OptionEntry& option : command.options) {
    if (option.positional) {
      positional = bash_value(option, app);
      continue;
    }
    flags += (flags.empty() ? "" : " ") + option.name;
    if (option.value.empty()) continue;
    values += fmt::format("        {}) {} ;;\n", option.name, bash_value(option, app));
  }
  return fmt::format(
      "    {})\n      case $prev in\n{}        *)\n"
      "          if [[ $cur == -* ]]; then _qnpu_words '{}'; else {}; fi\n"
      "          ;;\n      esac\n      ;;\n",
      command.name, values, flags, positional);
}

// A description within a word in single quotes, in brackets.
std::string zsh_text(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') result += '\\';
    result += c;
  }
  return shell_quoted(result);
}

std::string zsh_value(const OptionEntry& option, const CLI::App& app) {
  if (!option.choices.empty()) return fmt::format("({})", joined(option.choices));
  if (option.value == kFolder) return "_files -/";
  if (option.value == kFile) return "_files";
  if (option.value == kRecipe) return "_qnpu_recipes";
  if (option.value == kTargets) return "_qnpu_chips";
  if (option.value == kCommand) return fmt::format("({})", joined(command_names(app)));
  return " ";
}

std::string zsh_option(const OptionEntry& option, const CLI::App& app) {
  if (option.positional) {
    return fmt::format("'{}:{}:{}'", option.required ? "1" : ":", option.name,
                       zsh_value(option, app));
  }
  const std::string head =
      fmt::format("{}{}{}[{}]", option.many ? "*" : "", option.name,
                  option.value.empty() ? "" : "=", zsh_text(option.description));
  if (option.value.empty()) return fmt::format("'{}'", head);
  return fmt::format("'{}:{}:{}'", head, option.choices.empty() ? option.value : "value",
                     zsh_value(option, app));
}

constexpr const char* kZshMain = R"(  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  shift words
  (( CURRENT-- ))
  case $words[1] in
)";

constexpr const char* kZshEnd = R"(  esac
}
if [[ $funcstack[1] == _qnpu ]]; then
  _qnpu "$@"
else
  compdef _qnpu qnpu
fi
)";

std::string zsh_command(const CommandEntry& command, const CLI::App& app) {
  std::string text = fmt::format("    {})\n      _arguments", command.name);
  for (const OptionEntry& option : command.options) {
    text += " \\\n        " + zsh_option(option, app);
  }
  return text + "\n      ;;\n";
}

std::string fish_value(const OptionEntry& option, const CLI::App& app) {
  if (!option.choices.empty()) return fmt::format("-x -a '{}'", joined(option.choices));
  if (option.value == kFolder) return "-x -a '(__fish_complete_directories)'";
  if (option.value == kFile) return "-r -F";
  if (option.value == kRecipe) {
    return fmt::format("-x -a '{} (__fish_complete_suffix .json)'", joined(recipe_names()));
  }
  if (option.value == kTargets) {
    return fmt::format("-x -a '(__fish_append , {})'", joined(target_names()));
  }
  if (option.value == kCommand) return fmt::format("-x -a '{}'", joined(command_names(app)));
  return "-x";
}

constexpr const char* kFishHelpers = R"(# Completes qnpu in fish; written by `qnpu completion fish`.
function __qnpu_is
    set -l words (commandline -opc)
    test (count $words) -ge 2; and contains -- $words[2] $argv
end
complete -c qnpu -f
complete -c qnpu -n 'test (count (commandline -opc)) -eq 1' -l help -d 'Commands and examples'
complete -c qnpu -n 'test (count (commandline -opc)) -eq 1' -l version -d 'Version'
)";

}  // namespace

std::string bash_completion(const CLI::App& app) {
  std::string text = kBashHelpers;
  text += fmt::format("_qnpu_commands='{}'\n", joined(command_names(app)));
  text += fmt::format(
      "_qnpu_recipes() {{\n  compopt -o filenames 2>/dev/null\n"
      "  mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$cur\"; compgen -f -X '!*.json' -- "
      "\"$cur\")\n}}\n",
      joined(recipe_names()));
  text += fmt::format(
      "_qnpu_chips() {{ # of a list with commas, the last one\n  local last=${{cur##*,}}\n"
      "  mapfile -t COMPREPLY < <(compgen -P \"${{cur%\"$last\"}}\" -W '{}' -- \"$last\")\n}}\n",
      joined(target_names()));
  text += kBashMain;
  for (const CommandEntry& command : command_table(app)) text += bash_command(command, app);
  return text + "  esac\n}\ncomplete -F _qnpu qnpu\n";
}

std::string zsh_completion(const CLI::App& app) {
  std::string text = "#compdef qnpu\n# Completes qnpu in zsh; written by `qnpu completion zsh`.\n";
  text += fmt::format(
      "_qnpu_recipes() {{\n  _alternative 'recipe:recipe:({})' 'file:recipe file:_files -g "
      "\"*.json\"'\n}}\n"
      "_qnpu_chips() {{ _values -s , chip {} }}\n",
      joined(recipe_names()), joined(target_names()));
  text += "_qnpu() {\n  local -a commands=(\n";
  const std::vector<CommandEntry> commands = command_table(app);
  for (const CommandEntry& command : commands) {
    text += fmt::format("    '{}:{}'\n", command.name, shell_quoted(command.summary));
  }
  text += kZshMain;
  for (const CommandEntry& command : commands) text += zsh_command(command, app);
  return text + kZshEnd;
}

std::string fish_completion(const CLI::App& app) {
  std::string text = kFishHelpers;
  for (const CommandEntry& command : command_table(app)) {
    text +=
        fmt::format("complete -c qnpu -n 'test (count (commandline -opc)) -eq 1' -a {} -d '{}'\n",
                    command.name, shell_quoted(command.summary));
    for (const OptionEntry& option : command.options) {
      const std::string name =
          option.positional ? "" : fmt::format(" -l {}", option.name.substr(2));
      const std::string value =
          option.value.empty() ? "" : fmt::format(" {}", fish_value(option, app));
      text += fmt::format("complete -c qnpu -n '__qnpu_is {}'{}{} -d '{}'\n", command.name, name,
                          value, shell_quoted(option.description));
    }
  }
  return text;
}

}  // namespace qnpu
