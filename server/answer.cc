#include "server/answer.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace qnpu::server {

void append(TextPart& whole, TextPart part) {
  whole.text += part.text;
  std::ranges::move(part.tokens, std::back_inserter(whole.tokens));
}

void append(AnswerPart& whole, AnswerPart part) {
  append(whole.text, std::move(part.text));
  if (part.finish != Finish::kNone) whole.finish = part.finish;
}

Answer::Answer(const Tokenizer& tokenizer, const Job& job, std::shared_ptr<Channel> channel)
    : channel_(std::move(channel)),
      ended_(job.generations.size()),
      open_(static_cast<int>(job.generations.size())) {
  for (const GenerationRequest& generation : job.generations) {
    texts_.emplace_back(tokenizer, job.echo ? -1 : generation.prompt.back(), job.stops);
    const bool said_by_engine = generation.prompt_logprobs && generation.top_logprobs.has_value();
    if (job.echo && !said_by_engine) echoes_.push_back(generation.prompt);
  }
}

std::vector<AnswerPart> Answer::begin() {
  std::vector<AnswerPart> parts;
  for (size_t i = 0; i < echoes_.size(); ++i) {
    AnswerPart part{static_cast<int>(i)};
    for (const int32_t token : echoes_[i]) {
      append(part.text, texts_[i].add({.token = token, .is_prompt = true}));
    }
    parts.push_back(std::move(part));
  }
  return parts;
}

AnswerPart Answer::add(const Event& event) {
  const auto index = static_cast<size_t>(event.choice);
  AnswerPart part{event.choice};
  if (ended_[index]) return part;  // said before it heard of the stop text
  if (event.finish != Finish::kNone) {
    part.text = texts_[index].finish();
    end(part, texts_[index].is_stopped() ? Finish::kStop : event.finish);
    return part;
  }
  part.text = texts_[index].add(event.token);
  generated_ += !event.token.is_prompt;
  if (texts_[index].is_stopped()) {
    channel_->cancel(event.choice);
    end(part, Finish::kStop);
  }
  return part;
}

void Answer::end(AnswerPart& part, Finish how) {
  part.finish = how;
  ended_[static_cast<size_t>(part.choice)] = true;
  --open_;
}

}  // namespace qnpu::server
