#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/qnpu/commands.h"
#include "apps/qnpu/learning.h"
#include "apps/qnpu/options.h"
#include "apps/qnpu/program.h"
#include "base/status.h"
#include "model/budget.h"
#include "model/recipe.h"

namespace qnpu {
namespace {

struct Options {
  QuantizeArguments arguments;
  std::string recipe;
  CLI::Option* budget = nullptr;  // was it given?
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
void check_out(const std::filesystem::path& out) {
  std::error_code error;
  if (!std::filesystem::exists(out, error)) return;
  if (!std::filesystem::is_directory(out, error)) {
    fail("{} is a file; choose a folder for the artifact", out.string());
  }
  if (!std::filesystem::is_empty(out, error) && !is_artifact(out)) {
    fail("{} is a folder, but no artifact, and would be replaced; choose another", out.string());
  }
}

void run(const Options& options) {
  QuantizeArguments arguments = options.arguments;
  arguments.recipe = find_recipe(options.recipe);
  if (options.budget->count() > 0) check_budget(options);
  check_out(arguments.out);
  QuantizeSummary summary;
  {
    Progress progress;
    summary = quantize_checkpoint(arguments, progress);
  }
  if (!summary.first) return;
  const double seconds = summary.seconds["total"];
  fmt::print(stderr, "{}", summary.widths);
  fmt::print(stderr, "{}: {}, quantized in {:.1f} s with {} of memory\n", arguments.out.string(),
             format_bytes(summary.size_bytes), seconds, format_bytes(summary.peak_bytes));
  if (!options.json) return;
  print_json({{"out", arguments.out.string()},
              {"seconds", seconds},
              {"expected_seconds", summary.expected_seconds},
              {"peak_bytes", summary.peak_bytes},
              {"expected_peak_bytes", summary.expected_peak_bytes},
              {"size_bytes", summary.size_bytes},
              {"calibration_tokens", summary.calibration_tokens},
              {"step_seconds", summary.seconds},
              {"learn_seconds", summary.learn_seconds}});
}

}  // namespace

void add_quantize_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("quantize", "Make an artifact from a float checkpoint");
  const auto options = std::make_shared<Options>();
  QuantizeArguments& arguments = options->arguments;
  command->add_option("--model", arguments.model, "Hugging Face checkpoint folder")->required();
  command->add_option("--recipe", options->recipe, "Name of a recipe, or a .json file")->required();
  options->budget =
      command->add_option("--budget", arguments.budget,
                          "Widths are chosen within it (--recipe auto): \"16bit<=10%,size<=90MB\"");
  command->add_option("--out", arguments.out, "Folder of the artifact")->required();
  command->add_option("--calib", arguments.calibration,
                      "UTF-8 texts to calibrate with (default: sampled from the model)");
  command
      ->add_option("--samples", arguments.samples,
                   "Calibration windows, at most (default: the recipe's)")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--length", arguments.length,
                   "Tokens of a calibration window (default: the recipe's)")
      ->check(CLI::Range(2, 1 << 20));
  command->add_option("--seed", arguments.seed, "Of rotations, sampling, window choice")
      ->capture_default_str();
  command->add_option("--threads", arguments.threads, "Default: all cores")
      ->check(CLI::PositiveNumber);
  command->add_option("--processes", arguments.processes, "That share the texts and the threads")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command->add_option("--device", arguments.device, "Where the float model computes")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  add_json_flag(*command, options->json);
  command->callback([options] { run(*options); });
}

}  // namespace qnpu
