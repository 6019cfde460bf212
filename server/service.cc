#include "server/service.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <random>

#include "base/status.h"
#include "io/folder_name.h"
#include "io/unicode.h"
#include "model/tokens.h"
#include "server/api/error.h"

namespace qnpu::server {
namespace {

int64_t unix_time() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

uint64_t random_number() {
  static thread_local std::mt19937_64 random{(uint64_t{std::random_device{}()} << 32) |
                                             std::random_device{}()};
  return random();
}

// A template may refuse messages, such as two of one role in a row.
std::string prompt_of(const ChatTemplate& chat_template, const std::vector<ChatMessage>& messages) {
  try {
    return chat_prompt(chat_template, messages);
  } catch (const Error& error) {
    throw ApiError(400, fmt::format("The messages make no prompt: {}.", error.what()), "messages");
  }
}

}  // namespace

// The artifact is loaded first: of a folder that holds none that is what has to be said.
Service::Service(const std::filesystem::path& artifact, const ServiceOptions& options)
    : Service(load_artifact(artifact), artifact, options) {}

Service::Service(const std::shared_ptr<const Artifact>& artifact,
                 const std::filesystem::path& folder, const ServiceOptions& options)
    : name_(replace_invalid_utf8(options.name.empty() ? folder_name(folder) : options.name)),
      created_(unix_time()),
      time_limit_(options.time_limit),
      folder_(folder),
      tokenizer_(Tokenizer::load(folder)),
      engine_(artifact, options.engine, metrics_) {
  try {
    chat_template_ = load_chat_template(folder);
  } catch (const Error&) {  // says where it looked, which is nothing to tell a client
    no_chat_ = fmt::format("The model '{}' has no chat template: use /v1/completions.", name_);
  }
}

AnswerHead Service::head(const AnswerRequest& request, bool is_chat) const {
  return {.id = fmt::format("{}-{:016x}", is_chat ? "chatcmpl" : "cmpl", random_number()),
          .created = unix_time(),
          .model = name_,
          .is_chat = is_chat,
          .top_logprobs = request.top_logprobs};
}

std::vector<int32_t> Service::encode(const std::string& text, bool add_special_tokens) const {
  const std::vector<int> tokens = add_special_tokens
                                      ? token_sequence(tokenizer_, text)
                                      : tokenizer_.encode(text, /*add_special_tokens=*/false);
  return {tokens.begin(), tokens.end()};
}

void Service::check_prompt(const std::vector<int32_t>& prompt, const std::string& param) const {
  if (prompt.empty()) bad_field(param, "'{}' is empty: give at least one character.", param);
  const auto most = static_cast<size_t>(engine_.longest_prompt());
  if (prompt.size() > most) {
    throw ApiError(400,
                   fmt::format("This model's maximum context length is {} tokens, but the prompt "
                               "has {}. Shorten it.",
                               most, prompt.size()),
                   param, "context_length_exceeded");
  }
  for (const int32_t token : prompt) {
    if (token < engine_.vocab_size() && tokenizer_.has_token(token)) continue;
    bad_field(param, "'{}' holds {}, which is no token of this model.", param, token);
  }
}

void Service::add_choices(const AnswerRequest& request, std::vector<int32_t> prompt,
                          Job& job) const {
  GenerationRequest generation;
  generation.max_tokens = request.max_tokens.value_or(std::numeric_limits<int>::max());
  generation.sampling = request.sampling;
  generation.prompt_logprobs = job.echo;
  generation.top_logprobs = request.top_logprobs;
  generation.deadline = Clock::now() + time_limit_;
  generation.prompt = std::move(prompt);
  job.prompt_tokens += static_cast<int>(generation.prompt.size());
  const uint64_t seed = request.seed.value_or(random_number());
  for (int i = 0; i < request.choices; ++i) {
    generation.sampling.seed = seed + static_cast<uint64_t>(i);
    job.generations.push_back(generation);
  }
  if (job.generations.size() > static_cast<size_t>(engine_.max_queue())) {
    bad_field("n", "The request asks for more than {} choices, as many as this server keeps.",
              engine_.max_queue());
  }
}

namespace {

void check_model(const AnswerRequest& request, const std::string& name) {
  if (request.model.empty() || request.model == name) return;
  throw ApiError(
      404, fmt::format("The model '{}' does not exist; this server has '{}'.", request.model, name),
      "model", "model_not_found");
}

}  // namespace

Job Service::prepare(const CompletionRequest& request) const {
  check_model(request, name_);
  Job job;
  job.stops = request.stops;
  job.echo = request.echo;
  for (size_t i = 0; i < request.prompts.size(); ++i) {
    const Prompt& prompt = request.prompts[i];
    std::vector<int32_t> tokens = prompt.tokens;
    if (tokens.empty()) tokens = encode(prompt.text, /*add_special_tokens=*/true);
    check_prompt(tokens, request.prompts.size() == 1 ? "prompt" : fmt::format("prompt[{}]", i));
    add_choices(request, std::move(tokens), job);
  }
  return job;
}

Job Service::prepare(const ChatRequest& request) const {
  check_model(request, name_);
  if (!chat_template_) throw ApiError(400, no_chat_, "messages");
  Job job;
  job.stops = request.stops;
  // The template writes out BOS itself where the model wants one.
  std::vector<int32_t> tokens = encode(prompt_of(*chat_template_, request.messages), false);
  check_prompt(tokens, "messages");
  add_choices(request, std::move(tokens), job);
  return job;
}

std::shared_ptr<Channel> Service::submit(const Job& job) {
  auto channel = std::make_shared<Channel>(static_cast<int>(job.generations.size()));
  if (engine_.submit(job.generations, channel)) return channel;
  metrics_.rejected("queue full");
  throw ApiError(429, "The server is busy: its queue is full. Try again later.", "",
                 "rate_limit_exceeded");
}

}  // namespace qnpu::server
