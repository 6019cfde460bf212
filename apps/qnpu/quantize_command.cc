#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/qnpu/commands.h"
#include "apps/qnpu/learning.h"
#include "apps/qnpu/options.h"
#include "apps/qnpu/program.h"
#include "apps/qnpu/report_file.h"
#include "apps/qnpu/run_log.h"
#include "base/status.h"
#include "io/files.h"
#include "model/budget.h"
#include "model/recipe.h"

namespace qnpu {
namespace {

struct Options {
  QuantizeArguments arguments;
  std::string recipe;
  CLI::Option* budget = nullptr;  // was it given?
  RunOptions run;
  bool json = false;
};

// What is wrong with a budget shows before anything is read.
void check_budget(const Options& options) {
  parse_budget(options.arguments.budget);
  if (load_recipe(find_recipe(options.recipe)).budget.empty()) {
    fail(
        "the recipe '{}' fixes its widths, so there is nothing for --budget to choose; use "
        "--recipe auto, or a recipe with a \"budget\" of its own",
        options.recipe);
  }
}

// Before an hour of work: does the output have a place? An existing folder is replaced only if it
// is an artifact, so that a slip in --out can cost nothing else.
nlohmann::json to_json(const std::filesystem::path& out, const QuantizeSummary& summary) {
  return {{"out", out.string()},
          {"seconds", summary.seconds.at("total")},
          {"expected_seconds", summary.expected_seconds},
          {"peak_bytes", summary.peak_bytes},
          {"expected_peak_bytes", summary.expected_peak_bytes},
          {"size_bytes", summary.size_bytes},
          {"calibration_tokens", summary.calibration_tokens},
          {"step_seconds", summary.seconds},
          {"learn_seconds", summary.learn_seconds}};
}

// The folder of the run is that of its state too.
void begin(const Options& options, QuantizeArguments& arguments) {
  const bool named = !options.run.folder.empty();
  arguments.work = named ? options.run.folder : run_folder_of(arguments.out);
  Recipe recipe = load_recipe(arguments.recipe);
  if (!arguments.budget.empty()) recipe.budget = arguments.budget;
  open_run_log({arguments.work, /*keep=*/named}, {{"recipe", qnpu::to_json(recipe)}});
}

// The artifact is complete: a report that cannot be written costs nothing but itself.
void add_report(const std::filesystem::path& artifact, Progress& progress) {
  try {
    write_report_file({artifact, {}, {}}, {}, report_in(artifact));
  } catch (const Error& error) {
    progress.say(fmt::format("the artifact is complete, but has no report: {}\n", error.what()));
  }
}

void run(const Options& options) {
  QuantizeArguments arguments = options.arguments;
  arguments.recipe = find_recipe(options.recipe);
  if (options.budget->count() > 0) check_budget(options);
  check_target(arguments.out, "graph.json", "\"quantnpu\"", "artifact");
  check_apart(options.run.folder, arguments.out);
  need_learning_program();
  begin(options, arguments);
  Progress progress(options.run.quiet);
  QuantizeSummary summary = quantize_checkpoint(arguments, progress);
  if (!summary.first) return;
  add_report(arguments.out, progress);
  summary.size_bytes = folder_bytes(arguments.out);
  const nlohmann::json result = to_json(arguments.out, summary);
  progress.say(summary.widths);
  progress.say(fmt::format("{}: {}, quantized in {:.1f} s with {} of memory\n",
                           arguments.out.string(), format_bytes(summary.size_bytes),
                           summary.seconds.at("total"), format_bytes(summary.peak_bytes)));
  log_result(result);
  if (options.json) print_json(result);
}

void add_inputs(CLI::App& command, Options& options) {
  QuantizeArguments& arguments = options.arguments;
  command.add_option("--model", arguments.model, "Hugging Face checkpoint folder")
      ->required()
      ->type_name(kFolder);
  command.add_option("--recipe", options.recipe, "Name of a recipe, or a .json file")
      ->required()
      ->type_name(kRecipe);
  command.add_option("--out", arguments.out, "Folder of the artifact")
      ->required()
      ->type_name(kFolder);
  options.budget =
      command.add_option("--budget", arguments.budget,
                         "Widths are chosen within it (--recipe auto): \"16bit<=10%,size<=90MB\"");
}

void add_calibration(CLI::App& command, QuantizeArguments& arguments) {
  constexpr const char* kGroup = "Calibration";
  command
      .add_option("--calib", arguments.calibration,
                  "UTF-8 texts to calibrate with (default: sampled from the model)")
      ->type_name(kFile)
      ->group(kGroup);
  command
      .add_option("--samples", arguments.samples,
                  "Calibration windows, at most (default: the recipe's)")
      ->check(positive_integer())
      ->group(kGroup);
  command
      .add_option("--length", arguments.length,
                  "Tokens of a calibration window (default: the recipe's)")
      ->check(CLI::Range(2, 1 << 20))
      ->group(kGroup);
  command.add_option("--seed", arguments.seed, "Of rotations, sampling, window choice")
      ->check(natural_number<uint64_t>())
      ->group(kGroup)
      ->capture_default_str();
}

void add_machine(CLI::App& command, QuantizeArguments& arguments) {
  add_threads_option(command, arguments.threads);
  command.add_option("--processes", arguments.processes, "That share the texts and the threads")
      ->check(CLI::Range(1, 256))
      ->group(kMachineGroup)
      ->capture_default_str();
  command.add_option("--device", arguments.device, "Where the float model computes")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->group(kMachineGroup)
      ->capture_default_str();
}

}  // namespace

void add_quantize_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("quantize", "Make an artifact from a float checkpoint");
  command->group(kMake)->footer(
      "qnpu quantize --model my-checkpoint --recipe fast --out my-model\n"
      "qnpu quantize --model my-checkpoint --recipe default --calib my-text.txt --out my-model");
  const auto options = std::make_shared<Options>();
  add_inputs(*command, *options);
  add_calibration(*command, options->arguments);
  add_machine(*command, options->arguments);
  add_run_options(*command, options->run, "OUT.work");
  add_json_flag(*command, options->json);
  command->callback([options] { run(*options); });
}

}  // namespace qnpu
