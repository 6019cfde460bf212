#include "apps/qnpu/man_page.h"

#include <fmt/format.h>

#include <sstream>

#include "apps/qnpu/command_table.h"
#include "base/status.h"

namespace qnpu {
namespace {

constexpr const char* kEnvironment = R"(.SH ENVIRONMENT
.TP
.B QNPU_ISA
instruction set of the integer runtime, instead of the best that there is
.TP
.B QNPU_API_KEY
key that clients of qnpu serve must send
.TP
.B QNPU_PYTHON
Python that drives the NPU's compiler and emulator
)";

// Text of ours as troff reads it.
std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == '\\') result += "\\e";
    if (c == '-') result += "\\-";
    if (c == '\'') result += "\\(aq";
    if (c == '`') result += "\\(ga";
    if (c != '\\' && c != '-' && c != '\'' && c != '`') result += c;
  }
  if (result.starts_with('.')) result.insert(0, "\\&");
  return result;
}

// A signal is how a server is ended.
std::string exit_status(bool is_server) {
  return fmt::format(
      R"(.SH EXIT STATUS
.TP
.B 0
{}
.TP
.B 1
bad input, or any other error; one sentence on standard error says which
.TP
.BR 129 ", " 130 ", " 143
{}: the terminal went away, Ctrl\-C, SIGTERM
)",
      is_server
          ? "a signal ended the server, after requests that ran had their time (see \\-\\-drain)"
          : "all went well",
      is_server ? "ended at once, by a signal that came a second time" : "ended by a signal");
}

std::string title(const std::string& name) {
  return fmt::format(".TH {} 1 \"\" \"qnpu {}\" \"User Commands\"\n", name, QNPU_VERSION);
}

std::string entry(const std::string& name, const std::string& text) {
  return fmt::format(".TP\n.B {}\n{}\n", escaped(name), escaped(text));
}

std::string examples(const std::vector<std::string>& lines) {
  if (lines.empty()) return "";
  std::string text = ".SH EXAMPLES\n.nf\n";
  for (const std::string& line : lines) text += escaped(line) + "\n";
  return text + ".fi\n";
}

}  // namespace

std::string program_man_page(const CLI::App& app) {
  std::string text = title("QNPU");
  text += ".SH NAME\nqnpu \\- language models in integers for NPUs\n";
  text += ".SH SYNOPSIS\n.B qnpu\n.I command\n.RI [ argument ...]\n";
  text += ".SH DESCRIPTION\n" + escaped(app.get_description()) + "\n";
  std::istringstream footer(app.get_footer());
  std::vector<std::string> lines;
  for (std::string line; std::getline(footer, line);) lines.push_back(line);
  text += examples(lines) + ".SH COMMANDS\n";
  std::string see_also;
  for (const CommandEntry& command : command_table(app)) {
    text += entry(command.name, command.summary);
    see_also += fmt::format("{}.BR qnpu\\-{} (1)", see_also.empty() ? "" : ",\n", command.name);
  }
  return text + exit_status(/*is_server=*/false) + kEnvironment + ".SH SEE ALSO\n" + see_also +
         "\n";
}

std::string command_man_page(const CLI::App& app, const std::string& name) {
  const CLI::App* found = nullptr;
  for (const CLI::App* command : app.get_subcommands({})) {
    if (command->get_name() == name) found = command;
  }
  if (found == nullptr) fail("there is no command '{}'; `qnpu --help` lists what there is", name);
  const CommandEntry command = command_entry(*found);
  std::string text = title("QNPU\\-" + name);
  text += fmt::format(".SH NAME\nqnpu\\-{} \\- {}\n", name, escaped(command.summary));
  text += ".SH SYNOPSIS\n" + escaped(command.usage()) + "\n" + examples(command.examples);
  for (const std::string& group : command.groups()) {
    text += fmt::format(".SH {}\n", escaped(group));
    for (const OptionEntry& option : command.options) {
      if (option.group == group) text += entry(option.usage(), option.description);
    }
  }
  return text + exit_status(name == "serve") + ".SH SEE ALSO\n.BR qnpu (1)\n";
}

}  // namespace qnpu
