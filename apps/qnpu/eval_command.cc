#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/qnpu/commands.h"
#include "apps/qnpu/evaluation.h"
#include "apps/qnpu/learning.h"
#include "apps/qnpu/program.h"
#include "base/status.h"

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
  std::string dtype = "fp32";
  int threads = 0;
  bool json = false;
};

LogitsSource model_source(const fs::path& folder, const Options& options) {
  if (!fs::is_directory(folder)) fail("there is no folder {}", folder.string());
  if (is_artifact(folder)) {
    return artifact_source(load_artifact(folder), options.length, options.threads);
  }
  return float_source(folder, options.dtype, options.threads);
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
  if (!fs::is_directory(options.against)) return stored_source(options.against, windows);
  check_same_tokens(options, windows);
  return model_source(options.against, options);
}

nlohmann::json to_json(const Evaluation& result, const Windows& windows, double seconds) {
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
      {"seconds", seconds},
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

void run(const Options& options) {
  const auto start = std::chrono::steady_clock::now();
  const LogitsSource tested = model_source(options.model, options);
  const Windows windows =
      text_windows(Tokenizer::load(options.model), options.text, options.length, options.windows);
  const std::optional<LogitsSource> reference = reference_source(options, windows);
  std::optional<LogitsWriter> writer;
  if (!options.save_logits.empty()) writer.emplace(options.save_logits, windows, tested.vocab);
  Evaluation result;
  {
    Progress progress;
    result = evaluate(windows, tested, reference ? &*reference : nullptr,
                      writer ? &*writer : nullptr, progress);
  }
  if (writer) writer->commit();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  if (options.json) {
    print_json(to_json(result, windows, seconds.count()));
  } else {
    print_text(result, windows);
  }
}

}  // namespace

void add_eval_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "eval", "Perplexity of an artifact or checkpoint, and its distance from another");
  const auto options = std::make_shared<Options>();
  command->add_option("model", options->model, "Artifact or checkpoint folder")->required();
  command->add_option("--text", options->text, "UTF-8 text to evaluate on")->required();
  command->add_option("--length", options->length, "Tokens of a window")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  command->add_option("--windows", options->windows, "Windows, at most (default: all)")
      ->check(CLI::PositiveNumber);
  command->add_option("--against", options->against,
                      "Reference: checkpoint or artifact folder, or file of --save-logits");
  command->add_option("--save-logits", options->save_logits,
                      "Store the logits in this file, for --against");
  command->add_option("--dtype", options->dtype, "Of a checkpoint's matrix products")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  command->add_option("--threads", options->threads, "Default: all cores")
      ->check(CLI::PositiveNumber);
  command->add_flag("--json", options->json, "Print one JSON object on standard output");
  command->callback([options] { run(*options); });
}

}  // namespace qnpu
