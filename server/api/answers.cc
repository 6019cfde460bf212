#include "server/api/answers.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "io/unicode.h"

namespace qnpu::server {
namespace {

using nlohmann::json;

const char* reason_name(Finish finish) { return finish == Finish::kStop ? "stop" : "length"; }

json reason(Finish finish) { return finish == Finish::kNone ? json() : json(reason_name(finish)); }

json usage_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.generated_tokens},
          {"total_tokens", usage.prompt_tokens + usage.generated_tokens}};
}

// The older API's form of a token: its text, or its bytes where they are no text.
std::string token_name(const std::string& bytes) {
  if (count_invalid_utf8(bytes) == 0) return bytes;
  std::string name = "bytes:";
  for (const unsigned char byte : bytes) name += fmt::format("\\x{:02x}", byte);
  return name;
}

// Of two tokens with one name the likelier one is told.
json top_by_name(const TextToken& token, const Tokenizer& tokenizer) {
  if (token.output.top.empty()) return nullptr;
  json top = json::object();
  for (const TokenChance& chance : token.output.top) {
    top.emplace(token_name(token_bytes(tokenizer, token.before, chance.token)), chance.logprob);
  }
  return top;
}

json optional_number(const std::optional<double>& number) {
  return number ? json(*number) : json();
}

json completion_logprobs(const std::vector<TextToken>& tokens, const Tokenizer& tokenizer) {
  json names = json::array(), logprobs = json::array(), top = json::array(),
       offsets = json::array();
  for (const TextToken& token : tokens) {
    names.push_back(token_name(token.bytes));
    logprobs.push_back(optional_number(token.output.logprob));
    top.push_back(top_by_name(token, tokenizer));
    offsets.push_back(token.offset);
  }
  return {{"tokens", names},
          {"token_logprobs", logprobs},
          {"top_logprobs", top},
          {"text_offset", offsets}};
}

json chat_token(const std::string& bytes, double logprob) {
  json numbers = json::array();
  for (const unsigned char byte : bytes) numbers.push_back(byte);
  return {{"token", replace_invalid_utf8(bytes)}, {"logprob", logprob}, {"bytes", numbers}};
}

json chat_logprobs(const std::vector<TextToken>& tokens, size_t wished_top,
                   const Tokenizer& tokenizer) {
  json content = json::array();
  for (const TextToken& token : tokens) {
    json entry = chat_token(token.bytes, token.output.logprob.value_or(0.0));
    entry["top_logprobs"] = json::array();
    for (size_t i = 0; i < token.output.top.size() && i < wished_top; ++i) {
      const TokenChance& chance = token.output.top[i];
      entry["top_logprobs"].push_back(
          chat_token(token_bytes(tokenizer, token.before, chance.token), chance.logprob));
    }
    content.push_back(std::move(entry));
  }
  return {{"content", content}, {"refusal", nullptr}};
}

json logprobs_json(const AnswerHead& head, const AnswerPart& part, const Tokenizer& tokenizer) {
  if (!head.top_logprobs) return nullptr;
  if (!head.is_chat) return completion_logprobs(part.text.tokens, tokenizer);
  return chat_logprobs(part.text.tokens, static_cast<size_t>(*head.top_logprobs), tokenizer);
}

json answer_object(const AnswerHead& head, const char* kind, json choices) {
  return {{"id", head.id},
          {"object", kind},
          {"created", head.created},
          {"model", head.model},
          {"choices", std::move(choices)}};
}

json chunk(const AnswerHead& head, json choices, bool tells_usage) {
  json object = answer_object(head, head.is_chat ? "chat.completion.chunk" : "text_completion",
                              std::move(choices));
  if (tells_usage) object["usage"] = nullptr;
  return object;
}

}  // namespace

json whole_answer(const AnswerHead& head, const std::vector<AnswerPart>& choices,
                  const Usage& usage, const Tokenizer& tokenizer) {
  json list = json::array();
  for (const AnswerPart& part : choices) {
    json choice = {{"index", part.choice},
                   {"logprobs", logprobs_json(head, part, tokenizer)},
                   {"finish_reason", reason(part.finish)}};
    if (head.is_chat) {
      choice["message"] = {
          {"role", "assistant"}, {"content", part.text.text}, {"refusal", nullptr}};
    } else {
      choice["text"] = part.text.text;
    }
    list.push_back(std::move(choice));
  }
  json object =
      answer_object(head, head.is_chat ? "chat.completion" : "text_completion", std::move(list));
  object["usage"] = usage_json(usage);
  return object;
}

json role_chunk(const AnswerHead& head, int choice, bool tells_usage) {
  const json object = {{"index", choice},
                       {"delta", {{"role", "assistant"}, {"content", ""}}},
                       {"logprobs", nullptr},
                       {"finish_reason", nullptr}};
  return chunk(head, json::array({object}), tells_usage);
}

json part_chunk(const AnswerHead& head, const AnswerPart& part, bool tells_usage,
                const Tokenizer& tokenizer) {
  json choice = {
      {"index", part.choice}, {"logprobs", nullptr}, {"finish_reason", reason(part.finish)}};
  if (!part.text.tokens.empty()) choice["logprobs"] = logprobs_json(head, part, tokenizer);
  const std::string& text = part.text.text;
  if (head.is_chat) {
    choice["delta"] = json::object();
    if (!text.empty()) choice["delta"]["content"] = text;
  } else {
    choice["text"] = text;
  }
  return chunk(head, json::array({choice}), tells_usage);
}

json usage_chunk(const AnswerHead& head, const Usage& usage) {
  json object = chunk(head, json::array(), false);
  object["usage"] = usage_json(usage);
  return object;
}

json model_object(const std::string& name, int64_t created) {
  return {{"id", name}, {"object", "model"}, {"created", created}, {"owned_by", "quantnpu"}};
}

}  // namespace qnpu::server
