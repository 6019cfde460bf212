// Requests of the API as plain structs. The parsers throw ApiError for whatever is missing, of
// another type, outside its range, unknown, or known and not supported.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "io/chat_template.h"
#include "runtime/sampling.h"

namespace qnpu::server {

constexpr int kMostChoices = 16;      // `n`
constexpr int kMostTopLogprobs = 20;  // likeliest tokens at each place
constexpr int kMostStops = 16;

// What both kinds of request have.
struct AnswerRequest {
  std::string model;  // empty: not named
  int choices = 1;
  std::optional<int> max_tokens;
  SamplingOptions sampling;  // without its seed
  std::optional<uint64_t> seed;
  std::vector<std::string> stops;
  std::optional<int> top_logprobs;  // empty: no logprobs
  bool stream = false;
  bool include_usage = false;  // of a stream; else the usage is always told
};

struct Prompt {
  std::string text;
  std::vector<int32_t> tokens;  // in place of the text, if there are any
};

struct CompletionRequest : AnswerRequest {
  std::vector<Prompt> prompts;
  bool echo = false;
};

struct ChatRequest : AnswerRequest {
  std::vector<ChatMessage> messages;
};

CompletionRequest parse_completion(const nlohmann::json& body);
ChatRequest parse_chat(const nlohmann::json& body);

}  // namespace qnpu::server
