// An artifact that answers requests of the API: tokens and text, the engine, and the numbers about
// them. Knows nothing of HTTP; every function may be called by any thread.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "io/chat_template.h"
#include "io/tokenizer.h"
#include "model/artifact.h"
#include "server/answer.h"
#include "server/api/answers.h"
#include "server/api/requests.h"
#include "server/engine.h"
#include "server/metrics.h"

namespace qnpu::server {

struct ServiceOptions {
  std::string name;                              // of the model; empty: the artifact's folder's
  std::chrono::milliseconds time_limit{600000};  // of a request
  EngineOptions engine = {};
};

class Service {
 public:
  // Error: what load_artifact(), Tokenizer::load() and Engine say.
  Service(const std::filesystem::path& artifact, const ServiceOptions& options);

  const std::string& name() const { return name_; }
  int64_t created() const { return created_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  Engine& engine() { return engine_; }
  Metrics& metrics() { return metrics_; }

  // Error (ApiError): another model's name, a prompt without tokens, with unknown ones or longer
  // than the context, more choices than the queue can hold, a chat with a model that has no
  // template.
  Job prepare(const CompletionRequest& request) const;
  Job prepare(const ChatRequest& request) const;
  AnswerHead head(const AnswerRequest& request, bool is_chat) const;

  // The channel on which the job's answer comes. Error (ApiError 429): the queue is full.
  std::shared_ptr<Channel> submit(const Job& job);

 private:
  Service(const std::shared_ptr<const Artifact>& artifact, const std::filesystem::path& folder,
          const ServiceOptions& options);
  std::vector<int32_t> encode(const std::string& text, bool add_special_tokens) const;
  void check_prompt(const std::vector<int32_t>& prompt, const std::string& param) const;
  void add_choices(const AnswerRequest& request, std::vector<int32_t> prompt, Job& job) const;

  std::string name_;
  int64_t created_;
  std::chrono::milliseconds time_limit_;
  std::filesystem::path folder_;
  Tokenizer tokenizer_;
  std::optional<ChatTemplate> chat_template_;
  std::string no_chat_;  // why there is no template
  Metrics metrics_;
  Engine engine_;
};

}  // namespace qnpu::server
