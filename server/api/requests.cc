#include "server/api/requests.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "server/api/fields.h"

namespace qnpu::server {
namespace {

using nlohmann::json;

constexpr int kMostTokens = std::numeric_limits<int>::max();

void read_stream_options(Fields& fields, AnswerRequest& request) {
  request.stream = fields.flag("stream", false);
  const json* value = fields.find("stream_options");
  if (value == nullptr) return;
  if (!request.stream) {
    bad_field("stream_options", "'stream_options' is for requests with 'stream' true.");
  }
  Fields options(*value, "stream_options");
  request.include_usage = options.flag("include_usage", false);
  options.ignore({"include_obfuscation"});
  options.finish();
}

void read_common(Fields& fields, AnswerRequest& request) {
  request.model = fields.text("model", "");
  request.choices = fields.integer("n", 1, 1, kMostChoices);
  request.sampling.temperature = fields.number("temperature", 1.0, 0.0, 2.0);
  request.sampling.top_p = fields.number("top_p", 1.0, 0.0, 1.0);
  // The likeliest token alone is what a probability of 0 leaves.
  if (request.sampling.top_p == 0.0) request.sampling.temperature = 0.0;
  if (request.sampling.top_p == 0.0) request.sampling.top_p = 1.0;
  request.sampling.top_k = fields.integer("top_k", 0, 0, kMostTokens);
  request.seed = fields.seed("seed");
  request.stops = fields.texts("stop", kMostStops);
  read_stream_options(fields, request);
  for (const char* name : {"frequency_penalty", "presence_penalty", "logit_bias"}) {
    fields.refuse(name);
  }
  fields.ignore({"user", "metadata", "store", "service_tier", "safety_identifier",
                 "prompt_cache_key", "prompt_cache_retention"});
}

std::vector<int32_t> token_list(const json& list, const std::string& name) {
  std::vector<int32_t> tokens;
  for (const json& token : list) {
    const bool is_id =
        token.is_number_integer() && token >= 0 && token <= std::numeric_limits<int32_t>::max();
    if (!is_id) bad_field("prompt", "'{}' must hold token ids only.", name);
    tokens.push_back(token);
  }
  if (tokens.empty()) bad_field("prompt", "'{}' has no tokens.", name);
  return tokens;
}

Prompt one_prompt(const json& value, const std::string& name) {
  if (value.is_string()) return {value, {}};
  if (value.is_array()) return {"", token_list(value, name)};
  bad_field("prompt", "'{}' must be a text or a list of token ids.", name);
}

std::vector<Prompt> prompts_of(const json* value) {
  if (value == nullptr) bad_field("prompt", "You must provide a 'prompt'.");
  const bool is_list = value->is_array() && !value->empty() && !value->front().is_number();
  if (!is_list) return {one_prompt(*value, "prompt")};
  std::vector<Prompt> prompts;
  for (const json& entry : *value) {
    prompts.push_back(one_prompt(entry, fmt::format("prompt[{}]", prompts.size())));
  }
  return prompts;
}

// A text, or a list of parts that are texts.
std::string content_of(Fields& fields) {
  const json* value = fields.find("content");
  const std::string name = fields.name_of("content");
  if (value == nullptr) bad_field(name, "'{}' is missing.", name);
  if (value->is_string()) return *value;
  if (!value->is_array()) bad_field(name, "'{}' must be a text or a list of text parts.", name);
  std::string text;
  for (size_t i = 0; i < value->size(); ++i) {
    Fields part((*value)[i], fmt::format("{}[{}]", name, i));
    const std::string type = part.text("type", "");
    if (type != "text") {
      bad_field(part.name_of("type"), "'{}' must be \"text\": this model reads nothing else.",
                part.name_of("type"));
    }
    text += part.text("text", "");
    part.finish();
  }
  return text;
}

ChatMessage message_of(const json& value, const std::string& path) {
  Fields fields(value, path);
  ChatMessage message;
  message.role = fields.text("role", "");
  if (message.role == "developer") message.role = "system";
  if (message.role != "system" && message.role != "user" && message.role != "assistant") {
    const std::string name = fields.name_of("role");
    bad_field(name, "'{}' must be \"system\", \"developer\", \"user\" or \"assistant\".", name);
  }
  message.content = content_of(fields);
  for (const char* name : {"name", "tool_calls", "function_call", "audio", "refusal"}) {
    fields.refuse(name);
  }
  fields.ignore({"annotations"});
  fields.finish();
  return message;
}

std::vector<ChatMessage> messages_of(const json* value) {
  if (value == nullptr || !value->is_array() || value->empty()) {
    bad_field("messages", "'messages' must be a list of at least one message.");
  }
  std::vector<ChatMessage> messages;
  for (const json& message : *value) {
    messages.push_back(message_of(message, fmt::format("messages[{}]", messages.size())));
  }
  return messages;
}

}  // namespace

CompletionRequest parse_completion(const json& body) {
  Fields fields(body);
  CompletionRequest request;
  read_common(fields, request);
  request.prompts = prompts_of(fields.find("prompt"));
  request.echo = fields.flag("echo", false);
  request.max_tokens = fields.integer("max_tokens", 16, 0, kMostTokens);
  if (const json* wished = fields.find("logprobs"); wished != nullptr && !wished->is_boolean()) {
    request.top_logprobs = fields.integer("logprobs", 0, kMostTopLogprobs);
  } else if (wished != nullptr && *wished == true) {
    bad_field("logprobs", "'logprobs' must be a number of tokens, from 0 to {}.", kMostTopLogprobs);
  }
  fields.refuse("suffix");
  fields.refuse("best_of", request.choices);
  fields.finish();
  return request;
}

ChatRequest parse_chat(const json& body) {
  Fields fields(body);
  ChatRequest request;
  read_common(fields, request);
  request.messages = messages_of(fields.find("messages"));
  const auto longest = fields.integer("max_completion_tokens", 0, kMostTokens);
  const auto older_name = fields.integer("max_tokens", 0, kMostTokens);
  request.max_tokens = longest ? longest : older_name;
  if (fields.flag("logprobs", false)) request.top_logprobs = 0;
  if (const auto top = fields.integer("top_logprobs", 0, kMostTopLogprobs)) {
    if (!request.top_logprobs && *top > 0) {
      bad_field("top_logprobs", "'top_logprobs' is for requests with 'logprobs' true.");
    }
    if (request.top_logprobs) request.top_logprobs = top;
  }
  for (const char* name : {"tools", "functions", "audio", "prediction", "web_search_options",
                           "reasoning_effort", "verbosity"}) {
    fields.refuse(name);
  }
  fields.refuse("tool_choice", "none");
  fields.refuse("function_call", "none");
  fields.refuse("response_format", json::object({{"type", "text"}}));
  fields.refuse("modalities", json::array({"text"}));
  fields.ignore({"parallel_tool_calls"});
  fields.finish();
  return request;
}

}  // namespace qnpu::server
