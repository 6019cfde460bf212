// A request on its way through the engine: what is submitted, and what comes back as the parts of
// an answer.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "server/choice_text.h"
#include "server/engine.h"

namespace qnpu::server {

struct Job {
  std::vector<GenerationRequest> generations;  // one for each choice
  std::vector<std::string> stops;
  bool echo = false;      // the answer's text begins with the prompt
  int prompt_tokens = 0;  // of the prompts, each counted once
};

struct AnswerPart {
  int choice = 0;
  TextPart text = {};
  Finish finish = Finish::kNone;
};

// Puts what came next behind what was there.
void append(TextPart& whole, TextPart part);
void append(AnswerPart& whole, AnswerPart part);  // of the same choice

class Answer {
 public:
  // `channel` is the one that the job is submitted with. A choice that meets a stop text is
  // cancelled there.
  Answer(const Tokenizer& tokenizer, const Job& job, std::shared_ptr<Channel> channel);

  std::vector<AnswerPart> begin();  // of an echo without logprobs: the prompts
  AnswerPart add(const Event& event);
  bool is_complete() const { return open_ == 0; }
  int generated_tokens() const { return generated_; }

 private:
  void end(AnswerPart& part, Finish how);

  std::shared_ptr<Channel> channel_;
  std::vector<ChoiceText> texts_;
  std::vector<std::vector<int32_t>> echoes_;  // by choice
  std::vector<bool> ended_;
  int open_;
  int generated_ = 0;
};

}  // namespace qnpu::server
