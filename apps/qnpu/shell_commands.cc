// What a shell wants to know of the program: completions and manual pages.
#include <fmt/format.h>

#include "apps/qnpu/command_table.h"
#include "apps/qnpu/commands.h"
#include "apps/qnpu/completion.h"
#include "apps/qnpu/man_page.h"
#include "base/status.h"
#include "io/files.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;

std::string completion_for(const CLI::App& app, const std::string& shell) {
  if (shell == "bash") return bash_completion(app);
  return shell == "zsh" ? zsh_completion(app) : fish_completion(app);
}

// Where an installation has them, below share/.
void write_all(const CLI::App& app, const fs::path& share) {
  const auto write = [&](const char* folder, const std::string& name, const std::string& text) {
    std::error_code error;
    fs::create_directories(share / folder, error);
    if (error) fail("cannot make {}: {}", (share / folder).string(), error.message());
    write_file(share / folder / name, text);
  };
  write("man/man1", "qnpu.1", program_man_page(app));
  for (const CommandEntry& command : command_table(app)) {
    write("man/man1", fmt::format("qnpu-{}.1", command.name), command_man_page(app, command.name));
  }
  write("bash-completion/completions", "qnpu", bash_completion(app));
  write("zsh/site-functions", "_qnpu", zsh_completion(app));
  write("fish/vendor_completions.d", "qnpu.fish", fish_completion(app));
}

}  // namespace

void add_completion_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("completion", "Print the completions for a shell");
  command->group(kShell)->footer(
      "qnpu completion bash > ~/.local/share/bash-completion/completions/qnpu\n"
      "qnpu completion fish > ~/.config/fish/completions/qnpu.fish");
  const auto shell = std::make_shared<std::string>();
  command->add_option("shell", *shell, "Whose")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command->callback([&app, shell] { fmt::print("{}", completion_for(app, *shell)); });
}

void add_man_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("man", "Print the manual page of a command, or of qnpu");
  command->group(kShell)->footer("qnpu man eval | man -l -");
  const auto name = std::make_shared<std::string>();
  const auto share = std::make_shared<fs::path>();
  command->add_option("command", *name, "Whose (default: of the whole program)")
      ->type_name(kCommand);
  command
      ->add_option("--install", *share,
                   "Write all pages and completions into this folder, such as /usr/share, instead")
      ->type_name(kFolder);
  command->callback([&app, name, share] {
    if (!share->empty()) return write_all(app, *share);
    fmt::print("{}", name->empty() ? program_man_page(app) : command_man_page(app, *name));
  });
}

}  // namespace qnpu
