// qnpu and qnpu-learn: one command line, linked without and with libtorch. Whatever goes wrong ends
// here as one sentence on standard error and exit code 1 (130 after Ctrl-C).
#include <fmt/ranges.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <string>

#include "apps/qnpu/commands.h"
#include "apps/qnpu/interrupt.h"
#include "apps/qnpu/program.h"
#include "base/status.h"

namespace qnpu {
namespace {

constexpr const char* kDescription =
    "Static integer quantization of language models for NPUs, and an integer runtime that computes "
    "what the NPU computes.";

void add_commands(CLI::App& app) {
  app.set_version_flag("--version", "qnpu " QNPU_VERSION);
  app.require_subcommand(1);
  add_quantize_command(app);
  add_bench_command(app);
  add_estimate_command(app);
  add_eval_command(app);
  add_export_command(app);
  add_generate_command(app);
  add_inspect_command(app);
  add_serve_command(app);
  add_verify_command(app);
}

// CLI11 reports an unknown command as an argument too many; a nearby name helps more.
void check_command_name(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return;
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  if (std::find(names.begin(), names.end(), argv[1]) != names.end()) return;
  const std::string near = nearest_word(argv[1], names);
  fail("there is no command '{}'{}; commands are {}", argv[1],
       near.empty() ? "" : fmt::format(" (did you mean '{}'?)", near), fmt::join(names, ", "));
}

int run(int argc, char** argv) {
  CLI::App app(kDescription, "qnpu");
  add_commands(app);
  check_command_name(app, argc, argv);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    const std::string command = argc > 1 && argv[1][0] != '-' ? fmt::format(" {}", argv[1]) : "";
    fail("{}; `qnpu{} --help` lists what there is", error.what(), command);
  }
  if (std::fflush(stdout) != 0) fail("cannot write to standard output: {}", std::strerror(errno));
  return 0;
}

// libtorch's messages carry a stack trace; only their first line is for users.
std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

int report(const std::string& sentence) {
  fmt::print(stderr, "qnpu: error: {}\n", sentence);
  return 1;
}

int report_unexpected(const std::exception& error) {
  const std::string line = first_line(error.what());
  if (dynamic_cast<const std::bad_alloc*>(&error) || line.find("alloc") != std::string::npos) {
    return report("not enough memory; close other programs or choose a smaller --length");
  }
  return report(fmt::format("unexpected: {}", line));
}

}  // namespace
}  // namespace qnpu

int main(int argc, char** argv) {
  using namespace qnpu;
  remember_arguments(argc, argv);
  catch_interrupts();
  try {
    return run(argc, argv);
  } catch (const Interrupted& interrupt) {
    fmt::print(stderr, "qnpu: stopped; nothing was changed\n");
    return 128 + interrupt.signal;
  } catch (const Error& error) {
    return report(error.what());
  } catch (const std::exception& error) {
    return report_unexpected(error);
  }
}
