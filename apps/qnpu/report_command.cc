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
  const int64_t bytes = write_report_file(options.source, options.other, out);
  if (options.json) return print_json({{"out", out.string()}, {"bytes", bytes}});
  fmt::print("{}: {}\n", out.string(), format_bytes(bytes));
}

}  // namespace

void add_report_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "report", "One HTML file that shows an artifact, or two side by side; opens offline");
  const auto options = std::make_shared<Options>();
  command->add_option("artifact", options->source.artifact, "Folder that `qnpu quantize` wrote")
      ->required();
  CLI::Option* other = command->add_option("other", options->other.artifact,
                                           "Another one of the same model, to compare with");
  command->add_option("--out", options->out,
                      "HTML file (default: report.html in the artifact; of two, comparison.html)");
  command->add_option("--eval", options->source.evaluations,
                      "Files with what `qnpu eval --json` printed; their names become labels");
  command->add_option("--bench", options->source.bench,
                      "File with what `qnpu bench --json` printed");
  command->add_option("--other-eval", options->other.evaluations, "The same of the other artifact")
      ->needs(other);
  command->add_option("--other-bench", options->other.bench, "The same of the other artifact")
      ->needs(other);
  add_json_flag(*command, options->json);
  command->callback([options] { run(*options); });
}

}  // namespace qnpu
