#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "apps/qnpu/commands.h"
#include "apps/qnpu/interrupt.h"
#include "apps/qnpu/options.h"
#include "apps/qnpu/program.h"
#include "base/status.h"
#include "io/chat_template.h"
#include "io/files.h"
#include "io/token_stream.h"
#include "model/tokens.h"
#include "runtime/generate.h"

namespace qnpu {
namespace {

struct Options : ArtifactOptions {
  std::string prompt;
  std::string prompt_file;
  std::string system;
  bool chat = false;
  int tokens = 64;
  int context = 0;
  int threads = 0;
  int speculate = 0;
  SamplingOptions sampling;
};

std::vector<int> prompt_tokens(const Options& options, const Tokenizer& tokenizer) {
  const std::string text =
      options.prompt_file.empty() ? options.prompt : read_text(options.prompt_file);
  if (!options.chat) return token_sequence(tokenizer, text);
  std::vector<ChatMessage> messages;
  if (!options.system.empty()) messages.push_back({"system", options.system});
  messages.push_back({"user", text});
  // The template writes out BOS itself where the model wants one.
  return tokenizer.encode(chat_prompt(options.artifact, messages), /*add_special_tokens=*/false);
}

Session open_session(const Options& options) {
  SessionOptions session;
  session.context = options.context;
  session.threads = options.threads;
  return Session(load_artifact(options.artifact), session);
}

GenerateOptions generate_options(const Options& options) {
  GenerateOptions result;
  result.sampling = options.sampling;
  result.max_tokens = options.tokens;
  result.speculate = options.speculate;
  for (int token : end_tokens(options.artifact)) result.end_tokens.push_back(token);
  return result;
}

struct Rates {
  double prefill = 0;
  double decode = 0;
};

// The first token comes from the prompt's logits; decoding begins with the second.
Rates rates(const Generated& generated, size_t prompt) {
  const auto per_second = [](double count, double seconds) {
    return seconds > 0 && count > 0 ? count / seconds : 0.0;
  };
  const double decoded = static_cast<double>(generated.tokens.size()) - 1;
  return {per_second(static_cast<double>(prompt), generated.prefill_seconds),
          per_second(decoded, generated.decode_seconds)};
}

void report(const Generated& generated, const Session& session, const Rates& rates) {
  if (generated.reason == StopReason::kContextFull) {
    tell("qnpu: the context of {} positions is full; --context sets its size\n", session.context());
  }
  tell("{} tokens ({}), {:.1f} tokens/s; prompt {:.1f} tokens/s\n", generated.tokens.size(),
       stop_reason_name(generated.reason), rates.decode, rates.prefill);
  if (generated.proposed == 0) return;
  tell("speculation: {} of {} proposed tokens accepted\n", generated.accepted, generated.proposed);
}

void run(const Options& options) {
  Session session = open_session(options);
  session.set_watch([](const Node&) { check_interrupted(); });  // a long prompt takes a while
  const Tokenizer tokenizer = Tokenizer::load(options.artifact);
  const std::vector<int> prompt = prompt_tokens(options, tokenizer);
  if (prompt.empty()) fail("the prompt is empty; give at least one character with --prompt");
  TokenStream stream(tokenizer, prompt.back());
  const auto print = [&](const std::string& text) {
    if (options.json) return;
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  };
  const Generated generated =
      generate(session, prompt, generate_options(options), [&](int32_t token) {
        print(stream.add(token));
        return !interrupted();
      });
  print(stream.finish() + "\n");
  check_interrupted();
  const Rates speed = rates(generated, prompt.size());
  report(generated, session, speed);
  if (!options.json) return;
  print_json({{"text", stream.text()},
              {"tokens", generated.tokens.size()},
              {"token_ids", generated.tokens},
              {"prompt_tokens", prompt.size()},
              {"decode_tokens_per_second", speed.decode},
              {"prefill_tokens_per_second", speed.prefill},
              {"proposed_tokens", generated.proposed},
              {"accepted_tokens", generated.accepted},
              {"stop_reason", stop_reason_name(generated.reason)}});
}

void add_sampling_options(CLI::App& command, SamplingOptions& sampling) {
  constexpr const char* kGroup = "Sampling";
  command.add_option("--temperature", sampling.temperature, "0: always the likeliest token")
      ->group(kGroup)
      ->capture_default_str();
  command.add_option("--top-k", sampling.top_k, "Draw from the k likeliest tokens (0: all)")
      ->group(kGroup)
      ->capture_default_str();
  command
      .add_option("--top-p", sampling.top_p, "Draw from the likeliest that hold this probability")
      ->group(kGroup)
      ->capture_default_str();
  command.add_option("--seed", sampling.seed, "Of the draws")
      ->check(natural_number<uint64_t>())
      ->group(kGroup)
      ->capture_default_str();
}

}  // namespace

void add_generate_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("generate", "Continue a prompt with an artifact");
  command->group(kUse)->footer(
      "qnpu generate my-model --prompt 'The capital of France is' --tokens 64\n"
      "qnpu generate my-model --chat --prompt 'Name three rivers.' --temperature 0.7");
  const auto options = std::make_shared<Options>();
  add_artifact_options(*command, *options);
  CLI::Option* prompt =
      command->add_option("--prompt", options->prompt, "Text to continue, or question with --chat");
  CLI::Option* file =
      command->add_option("--prompt-file", options->prompt_file, "The same, from a UTF-8 file")
          ->excludes(prompt)
          ->type_name(kFile);
  CLI::Option* chat =
      command->add_flag("--chat", options->chat, "Put the prompt into the model's chat template");
  command->add_option("--system", options->system, "System message")->needs(chat);
  command->add_option("--tokens", options->tokens, "Tokens to generate, at most")
      ->check(positive_integer())
      ->capture_default_str();
  add_sampling_options(*command, options->sampling);
  command
      ->add_option("--context", options->context,
                   "Positions of the KV cache (default: 4096, "
                   "or fewer where the artifact has fewer)")
      ->check(positive_integer());
  add_threads_option(*command, options->threads);
  command
      ->add_option(
          "--speculate", options->speculate,
          "Tokens proposed at a time from what the text has said before; the result is the "
          "same (0: none)")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command->callback([options, prompt, file] {
    if (!*prompt && !*file) throw CLI::RequiredError("--prompt or --prompt-file");
    run(*options);
  });
}

}  // namespace qnpu
