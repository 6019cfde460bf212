#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/qnpu/commands.h"
#include "apps/qnpu/options.h"
#include "apps/qnpu/program.h"
#include "apps/qnpu/progress.h"
#include "apps/qnpu/report_file.h"

namespace qnpu {
namespace {

constexpr const char* kComparison = "comparison.html";

struct Options {
  ReportSource source;
  ReportSource other;
  std::filesystem::path out;
  bool json = false;
};

void run(const Options& options) {
  std::filesystem::path out = options.out;
  if (out.empty()) {
    out = options.other.artifact.empty() ? report_in(options.source.artifact) : kComparison;
  }
  for (const ReportSource* source : {&options.source, &options.other}) {
    check_is_no_input(out, source->evaluations);
    check_is_no_input(out, {source->bench});
  }
  const int64_t bytes = write_report_file(options.source, options.other, out);
  if (options.json) return print_json({{"out", out.string()}, {"bytes", bytes}});
  fmt::print("{}: {}\n", out.string(), format_bytes(bytes));
}

// Files of what was measured of one of the artifacts, which `needed` gives.
void add_measured(CLI::App& command, const std::string& eval, const std::string& bench,
                  ReportSource& source, CLI::Option* needed) {
  const std::string whose = needed == nullptr ? "" : ", of the other artifact";
  CLI::Option* added[] = {
      command.add_option(eval, source.evaluations,
                         "What `qnpu eval --json` printed" + whose + "; file names become labels"),
      command.add_option(bench, source.bench, "What `qnpu bench --json` printed" + whose)};
  for (CLI::Option* option : added) {
    option->type_name(kFile);
    if (needed != nullptr) option->needs(needed);
  }
}

}  // namespace

void add_report_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("report", "One HTML file that shows an artifact, or two side by side");
  command->group(kJudge)->footer(
      "qnpu report my-model\n"
      "qnpu report my-model --eval other-text.json --bench bench.json --out my-model.html\n"
      "qnpu report my-model my-w8a8");
  const auto options = std::make_shared<Options>();
  command->add_option("artifact", options->source.artifact, "Folder that `qnpu quantize` wrote")
      ->required()
      ->type_name(kFolder);
  CLI::Option* other = command
                           ->add_option("other", options->other.artifact,
                                        "Another one of the same model, to compare with")
                           ->type_name(kFolder);
  command
      ->add_option("--out", options->out,
                   "HTML file (default: report.html in the artifact; of two, comparison.html)")
      ->type_name(kFile);
  add_measured(*command, "--eval", "--bench", options->source, nullptr);
  add_measured(*command, "--other-eval", "--other-bench", options->other, other);
  add_json_flag(*command, options->json);
  command->callback([options] { run(*options); });
}

}  // namespace qnpu
