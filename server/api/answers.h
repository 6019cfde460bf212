// Answers of the API as JSON.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "io/tokenizer.h"
#include "server/answer.h"

namespace qnpu::server {

struct AnswerHead {
  std::string id;
  int64_t created = 0;  // Unix time
  std::string model;
  bool is_chat = false;
  std::optional<int> top_logprobs = {};  // empty: no logprobs
};

struct Usage {
  int prompt_tokens = 0;
  int generated_tokens = 0;
};

// Of a whole answer: one part for each choice, with all of its text.
nlohmann::json whole_answer(const AnswerHead& head, const std::vector<AnswerPart>& choices,
                            const Usage& usage, const Tokenizer& tokenizer);

// Of a stream. With `tells_usage` a usage comes at the end, and every chunk before has a null.
nlohmann::json role_chunk(const AnswerHead& head, int choice, bool tells_usage);  // of a chat
nlohmann::json part_chunk(const AnswerHead& head, const AnswerPart& part, bool tells_usage,
                          const Tokenizer& tokenizer);
nlohmann::json usage_chunk(const AnswerHead& head, const Usage& usage);

nlohmann::json model_object(const std::string& name, int64_t created);

}  // namespace qnpu::server
