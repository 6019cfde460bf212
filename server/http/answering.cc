#include "server/http/answering.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/api/answers.h"
#include "server/api/error.h"
#include "server/http/connection.h"

namespace qnpu::server {
namespace {

constexpr auto kPatience = std::chrono::milliseconds(100);  // between looks at the client

// Everything about one answer, for as long as it is being written.
struct Running {
  Service& service;
  AnswerHead head;
  Job job;
  std::shared_ptr<Channel> channel;
  Answer answer;
  bool include_usage = false;

  Running(Service& service, const AnswerRequest& request, Job wished, bool is_chat)
      : service(service),
        head(service.head(request, is_chat)),
        job(std::move(wished)),
        channel(service.submit(job)),
        answer(service.tokenizer(), job, channel),
        include_usage(request.include_usage) {}
  ~Running() { channel->cancel(); }

  Usage usage() const { return {job.prompt_tokens, answer.generated_tokens()}; }
};

bool is_failure(Finish finish) {
  return finish == Finish::kTimeout || finish == Finish::kCancelled || finish == Finish::kFailed;
}

ApiError failure(Finish finish) {
  switch (finish) {
    case Finish::kTimeout:
      return {504, "The request took longer than this server allows.", "", "timeout"};
    case Finish::kCancelled:
      return {503, "The server is shutting down.", "", "shutting_down"};
    default:
      return {500, "The server could not compute this; the request can be sent again."};
  }
}

// The next events, or nothing if the client has gone.
std::vector<Event> next_events(Running& running) {
  while (!Connection::current()->is_gone()) {
    std::vector<Event> events = running.channel->take(Clock::now() + kPatience);
    if (!events.empty()) return events;
  }
  return {};
}

void answer_whole(Running& running, httplib::Response& response) {
  std::vector<AnswerPart> choices(running.job.generations.size());
  for (size_t i = 0; i < choices.size(); ++i) choices[i].choice = static_cast<int>(i);
  const auto take = [&](AnswerPart part) {
    if (is_failure(part.finish)) throw failure(part.finish);
    AnswerPart& whole = choices[static_cast<size_t>(part.choice)];
    append(whole, std::move(part));
  };
  for (AnswerPart& part : running.answer.begin()) take(std::move(part));
  while (!running.answer.is_complete()) {
    const std::vector<Event> events = next_events(running);
    if (events.empty()) throw ApiError(499, "The client closed the connection.");
    for (const Event& event : events) take(running.answer.add(event));
  }
  const auto body =
      whole_answer(running.head, choices, running.usage(), running.service.tokenizer());
  response.set_content(body.dump(), "application/json");
}

class EventStream {
 public:
  EventStream(Running& running, httplib::DataSink& sink) : running_(running), sink_(sink) {}

  // False if the client has gone. Throws nothing: it would end the server.
  bool run() noexcept {
    bool is_done = false;
    try {
      is_done = write();
    } catch (...) {
      is_done = give_up(failure(Finish::kFailed));
    }
    if (is_done) sink_.done();
    return is_done;
  }

 private:
  bool write() {
    for (int i = 0; running_.head.is_chat && i < running_.channel->choices(); ++i) {
      if (!say(role_chunk(running_.head, i, running_.include_usage))) return false;
    }
    for (const AnswerPart& part : running_.answer.begin()) {
      if (!say(part)) return false;
    }
    while (!running_.answer.is_complete()) {
      const std::vector<Event> events = next_events(running_);
      if (events.empty()) return false;
      for (const AnswerPart& part : merged(events)) {
        if (is_failure(part.finish)) return give_up(failure(part.finish));
        if (!say(part)) return false;
      }
    }
    if (running_.include_usage && !say(usage_chunk(running_.head, running_.usage()))) return false;
    return send("[DONE]");
  }

  // One part for each choice, in the order of its first event: a client that takes its time gets
  // more at a time.
  std::vector<AnswerPart> merged(const std::vector<Event>& events) {
    std::vector<AnswerPart> parts;
    for (const Event& event : events) {
      AnswerPart part = running_.answer.add(event);
      const auto same = std::ranges::find(parts, part.choice, &AnswerPart::choice);
      if (same == parts.end()) {
        parts.push_back(std::move(part));
      } else {
        append(*same, std::move(part));
      }
    }
    return parts;
  }

  bool send(const std::string& data) {
    const std::string event = "data: " + data + "\n\n";
    return sink_.is_writable() && sink_.write(event.data(), event.size());
  }
  bool say(const nlohmann::json& chunk) { return send(chunk.dump()); }
  bool say(const AnswerPart& part) {
    const bool is_empty = part.text.text.empty() && part.finish == Finish::kNone &&
                          (part.text.tokens.empty() || !running_.head.top_logprobs);
    return is_empty || say(part_chunk(running_.head, part, running_.include_usage,
                                      running_.service.tokenizer()));
  }
  // A status was told long ago; the stream ends without its last word.
  bool give_up(const ApiError& error) { return send(error_body(error)); }

  Running& running_;
  httplib::DataSink& sink_;
};

}  // namespace

void answer_completion(Service& service, const AnswerRequest& request, Job job, bool is_chat,
                       httplib::Response& response) {
  const auto running = std::make_shared<Running>(service, request, std::move(job), is_chat);
  if (!request.stream) return answer_whole(*running, response);
  response.set_header("Cache-Control", "no-cache");
  response.set_chunked_content_provider(
      "text/event-stream",
      [running](size_t, httplib::DataSink& sink) { return EventStream(*running, sink).run(); });
}

}  // namespace qnpu::server
