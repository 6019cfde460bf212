// qnpu and qnpu-learn: one command line, linked without and with libtorch. Whatever goes wrong ends
// here as one sentence on standard error and exit code 1 (128 and its number after a signal).
#include <fmt/ranges.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <new>
#include <sstream>
#include <string>
#include <vector>

#include "apps/qnpu/command_table.h"
#include "apps/qnpu/commands.h"
#include "apps/qnpu/help.h"
#include "apps/qnpu/interrupt.h"
#include "apps/qnpu/program.h"
#include "apps/qnpu/run_log.h"
#include "base/status.h"

namespace qnpu {
namespace {

constexpr const char* kDescription =
    "qnpu makes static integer models for NPUs, and runs what the NPU would compute.";

constexpr const char* kExamples =
    "qnpu quantize --model my-checkpoint --recipe fast --out my-model\n"
    "qnpu eval my-model --text my-text.txt --against my-checkpoint\n"
    "qnpu generate my-model --prompt 'The capital of France is'\n"
    "qnpu export my-model --to genie --soc SM8750 --out my-bundle";

// In the order of `qnpu --help`.
void add_commands(CLI::App& app) {
  app.set_version_flag("--version", "qnpu " QNPU_VERSION);
  app.require_subcommand(1);
  app.footer(kExamples);
  set_help(app);
  add_quantize_command(app);
  add_watch_command(app);
  add_inspect_command(app);
  add_report_command(app);
  add_eval_command(app);
  add_generate_command(app);
  add_serve_command(app);
  add_bench_command(app);
  add_estimate_command(app);
  add_export_command(app);
  add_verify_command(app);
  add_completion_command(app);
  add_man_command(app);
}

std::string did_you_mean(const std::string& word, const std::vector<std::string>& words) {
  const std::string near = nearest_word(word, words);
  return near.empty() ? "" : fmt::format(" (did you mean '{}'?)", near);
}

// CLI11 reports an unknown command as an argument too many; a nearby name helps more.
void check_command_name(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return;
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  if (std::find(names.begin(), names.end(), argv[1]) != names.end()) return;
  fail("there is no command '{}'{}; commands are {}", argv[1], did_you_mean(argv[1], names),
       fmt::join(names, ", "));
}

// The same for options of a command that is known.
void check_option_names(const CLI::App& app, int argc, char** argv) {
  const CLI::App& command = *app.get_subcommand(argv[1]);
  std::vector<std::string> names;
  for (const OptionEntry& option : command_entry(command).options) {
    if (!option.positional) names.push_back(option.name);
  }
  for (int i = 2; i < argc && std::strcmp(argv[i], "--") != 0; ++i) {
    const std::string word = std::string(argv[i]).substr(0, std::string(argv[i]).find('='));
    if (!word.starts_with("--") || std::find(names.begin(), names.end(), word) != names.end()) {
      continue;
    }
    fail("`qnpu {0}` has no option {1}{2}; `qnpu {0} --help` lists what there is", argv[1], word,
         did_you_mean(word, names));
  }
}

// "$VARIABLE" that was never set: as a number it would be 0, as a file none, as a key no key.
void refuse_empty_values(CLI::App& app) {
  const auto check = [](std::string& text) {
    return std::string(text.empty() ? "its value is empty" : "");
  };
  for (CLI::App* command : app.get_subcommands({})) {
    for (CLI::Option* option : command->get_options()) {
      const std::string name = option->get_name();
      const bool any_text = name == "--prompt" || name == "--system";
      // As a transformation it comes before the checks.
      if (option->get_type_size() != 0 && !any_text) option->transform({check, ""});
    }
  }
}

// CLI11 says how many values it had expected.
std::string sentence_of(const CLI::ParseError& error) {
  const std::string text = error.what();
  const size_t end = text.find(": At Most 1 required");
  return end == std::string::npos ? text : text.substr(0, end) + " is given more than once";
}

int run(int argc, char** argv) {
  CLI::App app(kDescription, "qnpu");
  add_commands(app);
  refuse_empty_values(app);
  check_command_name(app, argc, argv);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    std::ostringstream text;
    app.exit(help, text, text);
    fmt::print("{}", text.str());
  } catch (const CLI::ParseError& error) {
    const bool named = argc > 1 && argv[1][0] != '-';
    if (named) check_option_names(app, argc, argv);
    const std::string command = named ? fmt::format(" {}", argv[1]) : "";
    fail("{}; `qnpu{} --help` lists what there is", sentence_of(error), command);
  }
  check_output();
  return 0;
}

// libtorch's messages carry a stack trace; only their first line is for users.
std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

int report_stopped(int signal) {
  close_run_log(128 + signal, "stopped");
  // `qnpu inspect my-model | head` has seen enough.
  if (signal != SIGPIPE) tell("qnpu: stopped; nothing was changed\n");
  return 128 + signal;
}

int report(const std::string& sentence) {
  if (output_is_unread()) return report_stopped(SIGPIPE);
  close_run_log(1, sentence);
  tell("qnpu: error: {}\n", sentence);
  return 1;
}

int report_unexpected(const std::exception& error) {
  const std::string line = first_line(error.what());
  if (dynamic_cast<const std::bad_alloc*>(&error) || line.find("alloc") != std::string::npos) {
    return report("not enough memory; close other programs or choose a smaller --length");
  }
  const std::string unwritten = "cannot write to file: ";  // fmt's, of what goes to stdout
  if (line.starts_with(unwritten)) {
    return report("cannot write to standard output: " + line.substr(unwritten.size()));
  }
  if (const auto* file = dynamic_cast<const std::filesystem::filesystem_error*>(&error)) {
    return report(fmt::format("cannot use {}: {}; check the path and who may write there",
                              file->path1().string(), file->code().message()));
  }
  return report(fmt::format("unexpected: {}", line));
}

}  // namespace
}  // namespace qnpu

int main(int argc, char** argv) {
  using namespace qnpu;
  hold_standard_streams();
  remember_arguments(argc, argv);
  catch_interrupts();
  try {
    const int code = run(argc, argv);
    close_run_log(code);
    return code;
  } catch (const Interrupted& interrupt) {
    return report_stopped(interrupt.signal);
  } catch (const Error& error) {
    return report(error.what());
  } catch (const std::exception& error) {
    return report_unexpected(error);
  }
}
