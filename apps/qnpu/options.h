// Options that several commands have.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>

#include "apps/qnpu/command_table.h"
#include "apps/qnpu/run_log.h"
#include "base/status.h"
#include "export/decoder.h"

namespace qnpu {

// CLI11's own sentence spells the largest double in 309 digits.
inline CLI::Validator positive_integer() {
  const auto check = [](std::string& text) -> std::string {
    int64_t value = 0;
    if (CLI::detail::lexical_cast(text, value) && value > 0) return "";
    return fmt::format("'{}' must be a positive integer", text);
  };
  return {check, "POSITIVE"};
}

// CLI11 takes -1 for the largest of an unsigned type, and what is larger too.
template <typename T>
CLI::Validator natural_number() {
  const auto check = [](std::string& text) -> std::string {
    T value{};
    const char* end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, value);
    if (error == std::errc() && rest == end && value >= 0) return "";
    return fmt::format("'{}' must be an integer from 0 to {}", text, std::numeric_limits<T>::max());
  };
  return {check, ""};
}

// CLI::Range lets NaN pass.
inline CLI::Validator finite_number() {
  const auto check = [](std::string& text) -> std::string {
    double value = 0.0;
    if (CLI::detail::lexical_cast(text, value) && std::isfinite(value)) return "";
    return fmt::format("'{}' must be a number", text);
  };
  return {check, ""};
}

inline void add_json_flag(
    CLI::App& command, bool& json,
    const std::string& description = "Print one JSON object on standard output") {
  command.add_flag("--json", json, description)->group(kOutputGroup);
}

// Of commands that take long.
struct RunOptions {
  std::filesystem::path folder;  // of the log; empty: none
  bool quiet = false;
};

inline void add_run_options(CLI::App& command, RunOptions& o, const std::string& folder = "none") {
  command
      .add_option("--run", o.folder,
                  "Folder of the run's log, for `qnpu watch` (default: " + folder + ")")
      ->type_name(kFolder)
      ->group(kOutputGroup);
  command.add_flag("--quiet", o.quiet, "No progress and no messages but errors")
      ->group(kOutputGroup);
}

inline void begin_run(const RunOptions& o) {
  if (!o.folder.empty()) open_run_log({o.folder});
}

inline void add_threads_option(CLI::App& command, int& threads) {
  command.add_option("--threads", threads, "Threads to compute with (default: all cores)")
      ->check(CLI::Range(1, 1024))
      ->group(kMachineGroup);
}

// An artifact, or what a recipe would make of a checkpoint.
struct PlanOptions {
  std::filesystem::path artifact;
  std::filesystem::path model;
  std::string recipe;
};

// Returns what a command's callback calls before it reads `o`. Error: neither was given.
inline std::function<void()> add_plan_options(CLI::App& command, PlanOptions& o) {
  CLI::Option* artifact =
      command.add_option("artifact", o.artifact, "Artifact folder")->type_name(kFolder);
  CLI::Option* model =
      command.add_option("--model", o.model, "Checkpoint folder (with --recipe): a plan")
          ->type_name(kFolder);
  CLI::Option* recipe =
      command.add_option("--recipe", o.recipe, "Name of a recipe, or a .json file")
          ->type_name(kRecipe);
  model->needs(recipe)->excludes(artifact);
  recipe->needs(model);
  return [artifact, model] {
    if (!*artifact && !*model) throw CLI::RequiredError("an artifact, or --model and --recipe");
  };
}

// Of graphs that are only looked at. `given`: by --context; `whose`, the artifact or checkpoint,
// has `positions`. Error: more than these.
constexpr int kContext = 1024;
inline int graph_context(const std::optional<int>& given, int positions,
                         const std::filesystem::path& whose) {
  if (given.value_or(0) <= positions) return given.value_or(std::min(kContext, positions));
  fail("a context of {} positions, but {} has {}: give --context {} or less", *given,
       whose.string(), positions, positions);
}

struct ArtifactOptions {
  std::filesystem::path artifact;
  bool json = false;
};

inline void add_artifact_options(CLI::App& command, ArtifactOptions& o) {
  command.add_option("artifact", o.artifact, "Folder that `qnpu quantize` wrote")
      ->required()
      ->type_name(kFolder);
  add_json_flag(command, o.json);
}

// Of exported graphs. `part.count` 0: as many as the binaries' sizes ask for.
inline void add_graph_options(CLI::App& command, DecoderOptions& graph) {
  graph.part.count = 0;
  command.add_option("--rows", graph.rows, "Tokens that the prefill graph takes")
      ->check(CLI::Range(1, 4096))
      ->group(kGraphGroup)
      ->capture_default_str();
  command.add_option("--context", graph.context, "Positions of the cache, the prefix included")
      ->group(kGraphGroup)
      ->capture_default_str();
  command
      .add_option("--most-scores", graph.most_scores,
                  "Scores of attention that one operation computes; more are cut into several")
      ->check(positive_integer())
      ->group(kGraphGroup)
      ->capture_default_str();
  command
      .add_option("--split", graph.part.count,
                  "Parts into which the graphs are cut between layers (default: as few as the "
                  "limit of a binary allows)")
      ->check(CLI::Range(1, 256))
      ->group(kGraphGroup);
}

}  // namespace qnpu
