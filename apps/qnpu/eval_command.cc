#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/qnpu/commands.h"
#include "apps/qnpu/evaluation.h"
#include "apps/qnpu/learning.h"
#include "apps/qnpu/options.h"
#include "apps/qnpu/program.h"
#include "apps/qnpu/task_evaluation.h"
#include "base/clock.h"
#include "base/status.h"
#include "io/atomic_file.h"
#include "io/files.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;

struct Options {
  fs::path model;
  fs::path text;
  int length = 2048;
  int windows = 0;
  std::string against;
  std::string save_logits;
  std::vector<fs::path> tasks;
  int limit = 0;
  fs::path items;
  std::string dtype = "fp32";
  int threads = 0;
  bool simulate = false;
  std::vector<std::string> exact;  // sites of the model, not of the reference
  bool json = false;
  RunOptions run;
};

// Not of a name that no file can have either, which fs::is_directory alone would throw for.
bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

void check_model(const fs::path& folder) {
  if (!is_folder(folder)) fail("there is no folder {}", folder.string());
  if (!is_artifact(folder)) need_learning_program();
}

// For sequences of up to `context` tokens.
LogitsSource model_source(const fs::path& folder, int context, const Options& options,
                          const std::vector<std::string>& exact = {}) {
  check_model(folder);
  if (!is_artifact(folder)) {
    if (!exact.empty())
      fail("{} is no artifact: nothing is rounded in it; leave out --exact", folder.string());
    return float_source(folder, options.dtype, options.threads);
  }
  const auto artifact = load_artifact(folder);
  const bool simulate = options.simulate || !simulated_only(*artifact).empty();
  if (simulate) return simulated_source(artifact, exact, options.threads);
  return artifact_source(artifact, context, options.threads);
}

void check_window_fits(const LogitsSource& source, int length) {
  if (length <= source.context) return;
  fail("{} has {} positions for text, fewer than one window of {}; give --length {} or less",
       source.name, source.context, length, source.context);
}

// Logits of different token ids cannot be compared.
void check_same_tokens(const Options& options, const Windows& windows) {
  const Tokenizer tokenizer = Tokenizer::load(options.against);
  if (text_windows(tokenizer, options.text, options.length, options.windows).tokens ==
      windows.tokens) {
    return;
  }
  fail("{} and {} cut the text into different tokens; compare models of one tokenizer",
       options.model.string(), options.against);
}

std::optional<LogitsSource> reference_source(const Options& options, const Windows& windows) {
  if (options.against.empty()) return std::nullopt;
  if (!is_folder(options.against)) return stored_source(options.against, windows);
  check_same_tokens(options, windows);
  LogitsSource source = model_source(options.against, options.length, options);
  check_window_fits(source, options.length);
  return source;
}

nlohmann::json to_json(const Evaluation& result, const Windows& windows) {
  nlohmann::json json = {
      {"perplexity", result.tested.perplexity()},
      {"bits_per_byte", result.tested.bits_per_byte(windows.scored_bytes)},
      {"kl_divergence", nullptr},
      {"top1_agreement", nullptr},
      {"reference_perplexity", nullptr},
      {"tokens", result.tested.tokens},
      {"bytes", windows.scored_bytes},
      {"windows", windows.count},
      {"length", windows.length},
      {"prefill_tokens_per_second", result.tested.tokens / result.model_seconds}};
  if (result.divergence.tokens > 0) {
    json["kl_divergence"] = result.divergence.kl_divergence();
    json["top1_agreement"] = result.divergence.top1_agreement();
    json["reference_perplexity"] = result.reference.perplexity();
  }
  return json;
}

void print_text(const Evaluation& result, const Windows& windows) {
  fmt::print("perplexity         {:.4f}\n", result.tested.perplexity());
  fmt::print("bits per byte      {:.4f}\n", result.tested.bits_per_byte(windows.scored_bytes));
  if (result.divergence.tokens > 0) {
    fmt::print("reference          {:.4f}\n", result.reference.perplexity());
    fmt::print("KL divergence      {:.5f}\n", result.divergence.kl_divergence());
    fmt::print("top-1 agreement    {:.2f} %\n", 100 * result.divergence.top1_agreement());
  }
  fmt::print("tokens             {} in {} windows of {}\n", result.tested.tokens, windows.count,
             windows.length);
  fmt::print("prefill            {:.1f} tokens/s\n", result.tested.tokens / result.model_seconds);
}

// The standard error of a single item is NaN, which JSON writes as null.
nlohmann::json to_json(const ChoiceAccuracy& accuracy) {
  return {{"acc", accuracy.plain.share()},
          {"acc_stderr", accuracy.plain.standard_error()},
          {"acc_norm", accuracy.normalised.share()},
          {"acc_norm_stderr", accuracy.normalised.standard_error()},
          {"items", accuracy.plain.items}};
}

void print_task(const std::string& name, const ChoiceAccuracy& accuracy) {
  const int64_t items = accuracy.plain.items;
  const auto text = [&](const auto& right) {
    const std::string share = fmt::format("{:.4f}", right.share());
    return items == 1 ? share : fmt::format("{} +- {:.4f}", share, right.standard_error());
  };
  fmt::print("{:<18} acc {}, acc_norm {}, {} item{}\n", name, text(accuracy.plain),
             text(accuracy.normalised), items, items == 1 ? "" : "s");
}

struct Inputs {
  std::optional<Windows> windows;
  std::vector<Task> tasks;
};

Inputs read_inputs(const Options& options) {
  const Tokenizer tokenizer = Tokenizer::load(options.model);
  Inputs inputs;
  if (!options.text.empty()) {
    inputs.windows = text_windows(tokenizer, options.text, options.length, options.windows);
  }
  inputs.tasks = load_tasks(tokenizer, options.tasks, options.limit);
  return inputs;
}

int longest_sequence(const Options& options, const Inputs& inputs) {
  int longest = inputs.windows ? options.length : 1;
  for (const Task& task : inputs.tasks) longest = std::max(longest, task.longest());
  return longest;
}

// What is said about each item, as JSON lines; nothing if the path is empty.
class ItemFile {
 public:
  explicit ItemFile(const fs::path& path) {
    if (!path.empty()) file_.emplace(path);
  }
  void write(const Task& task, const TaskItem& item, std::span<const double> log_likelihoods) {
    if (!file_) return;
    const nlohmann::json json = {{"task", task.name},
                                 {"line", item.line},
                                 {"log_likelihoods", log_likelihoods},
                                 {"characters", item.characters},
                                 {"gold", item.gold}};
    const std::string text = json_text(json) + "\n";
    file_->write(std::as_bytes(std::span(text)));
  }
  void commit() {
    if (file_) file_->commit();
  }

 private:
  std::optional<AtomicFile> file_;
};

struct Results {
  bool simulated = false;
  std::optional<Evaluation> text;
  std::vector<ChoiceAccuracy> tasks;
};

Results evaluate_inputs(const Options& options, const Inputs& inputs) {
  const LogitsSource tested =
      model_source(options.model, longest_sequence(options, inputs), options, options.exact);
  begin_run(options.run);
  Progress progress(options.run.quiet);
  Results results;
  results.simulated = tested.simulated;
  // What can be wrong with the tasks is found before the text's hours, not after them.
  ItemFile items(options.items);
  for (const Task& task : inputs.tasks) check_items(task, tested);
  std::optional<LogitsWriter> writer;
  if (inputs.windows) {
    check_window_fits(tested, options.length);
    const auto reference = reference_source(options, *inputs.windows);
    if (!options.save_logits.empty()) {
      writer.emplace(options.save_logits, *inputs.windows, tested.vocab);
    }
    results.text = evaluate(*inputs.windows, tested, reference ? &*reference : nullptr,
                            writer ? &*writer : nullptr, progress);
  }
  for (const Task& task : inputs.tasks) {
    const auto write = [&](const TaskItem& item, auto sums) { items.write(task, item, sums); };
    results.tasks.push_back(evaluate_task(task, tested, progress, write));
  }
  items.commit();
  if (writer) writer->commit();
  return results;
}

void print(const Results& results, const Inputs& inputs) {
  if (results.simulated) fmt::print("simulated          in float, not by the integer runtime\n");
  if (results.text) print_text(*results.text, *inputs.windows);
  for (size_t i = 0; i < inputs.tasks.size(); ++i) {
    print_task(inputs.tasks[i].name, results.tasks[i]);
  }
}

nlohmann::json to_json(const Results& results, const Inputs& inputs, double seconds) {
  nlohmann::json json = nlohmann::json::object();
  if (results.text) json = to_json(*results.text, *inputs.windows);
  for (size_t i = 0; i < inputs.tasks.size(); ++i) {
    json["tasks"][inputs.tasks[i].name] = to_json(results.tasks[i]);
  }
  json["simulated"] = results.simulated;
  json["seconds"] = seconds;
  return json;
}

void check_outputs(const Options& options) {
  if (!options.items.empty() && options.items == options.save_logits) {
    fail("--items and --save-logits both name {}; choose two files", options.items.string());
  }
  std::vector<fs::path> inputs = options.tasks;
  inputs.push_back(options.text);
  inputs.emplace_back(options.against);
  check_is_no_input(options.items, inputs);
  check_is_no_input(options.save_logits, inputs);
}

void run(const Options& options) {
  const Clock::time_point start = Clock::now();
  if (options.text.empty() && options.tasks.empty()) {
    fail("nothing to evaluate on; give --text, --tasks or both");
  }
  check_outputs(options);
  check_model(options.model);
  if (is_folder(options.against)) check_model(options.against);
  const Inputs inputs = read_inputs(options);
  const Results results = evaluate_inputs(options, inputs);
  const nlohmann::json json = to_json(results, inputs, seconds_since(start));
  log_result(json);
  if (options.json) return print_json(json);
  print(results, inputs);
}

void add_text_options(CLI::App& command, Options& options) {
  constexpr const char* kGroup = "Text";
  CLI::Option* text = command.add_option("--text", options.text, "UTF-8 text to evaluate on")
                          ->type_name(kFile)
                          ->group(kGroup);
  command.add_option("--length", options.length, "Tokens of a window")
      ->needs(text)
      ->check(CLI::Range(2, 1 << 20))
      ->group(kGroup)
      ->capture_default_str();
  command.add_option("--windows", options.windows, "Windows, at most (default: all)")
      ->needs(text)
      ->check(positive_integer())
      ->group(kGroup);
  command
      .add_option("--against", options.against,
                  "Reference: checkpoint or artifact folder, or file of --save-logits")
      ->needs(text)
      ->type_name(kFile)
      ->group(kGroup);
  command
      .add_option("--save-logits", options.save_logits,
                  "Store the logits in this file, for --against")
      ->needs(text)
      ->type_name(kFile)
      ->group(kGroup);
}

void add_task_options(CLI::App& command, Options& options) {
  constexpr const char* kGroup = "Tasks";
  CLI::Option* tasks =
      command
          .add_option("--tasks", options.tasks,
                      "JSON lines of questions with choices; may be given several times")
          ->allow_extra_args(false)
          ->type_name(kFile)
          ->group(kGroup);
  command.add_option("--limit", options.limit, "Items of each task, at most (default: all)")
      ->needs(tasks)
      ->check(positive_integer())
      ->group(kGroup);
  command.add_option("--items", options.items, "Store each item's log-likelihoods in this file")
      ->needs(tasks)
      ->type_name(kFile)
      ->group(kGroup);
}

}  // namespace

void add_eval_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("eval", "Perplexity, answers, and distance from another model");
  command->group(kJudge)->footer(
      "qnpu eval my-model --text my-text.txt --against my-checkpoint\n"
      "qnpu eval my-model --tasks my-questions.jsonl");
  const auto options = std::make_shared<Options>();
  command->add_option("model", options->model, "Artifact or checkpoint folder")
      ->required()
      ->type_name(kFolder);
  add_text_options(*command, *options);
  add_task_options(*command, *options);
  command->add_option("--dtype", options->dtype, "Of a checkpoint's matrix products")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  CLI::Option* simulate =
      command->add_flag("--simulate", options->simulate,
                        "Artifacts in the float simulator, not by the integer runtime");
  command
      ->add_option("--exact", options->exact,
                   "Activations that are not rounded, to see what that costs: 'layers.*.silu.out'")
      ->needs(simulate)
      ->allow_extra_args(false)
      ->type_name("GLOB");
  add_threads_option(*command, options->threads);
  add_run_options(*command, options->run);
  add_json_flag(*command, options->json);
  command->callback([options] { run(*options); });
}

}  // namespace qnpu
