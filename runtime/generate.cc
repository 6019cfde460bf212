#include "runtime/generate.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "runtime/speculate.h"

namespace qnpu {
namespace {

// Leaves in the cache what was accepted of a draft, even if a callback throws.
struct Rewind {
  Session& session;
  int base;
  const size_t& accepted;

  int position() const { return base + static_cast<int>(accepted); }
  ~Rewind() { session.truncate(position()); }
};

class Generation {
 public:
  Generation(Session& session, const GenerateOptions& options,
             const std::function<bool(int32_t)>& on_token, std::span<const int32_t> prompt)
      : session_(session),
        options_(options),
        on_token_(on_token),
        sampler_(options.sampling),
        history_(prompt.begin(), prompt.end()) {}

  Generated run(std::span<const int32_t> prompt) {
    auto start = Clock::now();
    std::span<const int16_t> logits = session_.prefill(prompt);
    result_.prefill_seconds = seconds_since(start);
    start = Clock::now();
    bool more = options_.max_tokens > 0;
    while (more && (more = take(logits))) logits = next();
    result_.decode_seconds = seconds_since(start);
    return std::move(result_);
  }

 private:
  bool stop(StopReason reason) {
    result_.reason = reason;
    return false;
  }

  // One token from each row of logits, as long as it is the one that was proposed for the next row;
  // the cache forgets the rest. False if the generation is at its end.
  bool take(std::span<const int16_t> logits) {
    const size_t vocab = logits.size() / (draft_.size() + 1);
    size_t row = 0;
    Rewind rewind{session_, session_.position() - static_cast<int>(draft_.size()), row};
    bool more = accept(logits.first(vocab));
    while (more && row < draft_.size() && result_.tokens.back() == draft_[row]) {
      ++row;
      ++result_.accepted;
      more = accept(logits.subspan(row * vocab, vocab));
    }
    if (more && rewind.position() == session_.context()) return stop(StopReason::kContextFull);
    return more;
  }

  bool accept(std::span<const int16_t> logits) {
    const int32_t token = sampler_.sample(logits, session_.logits_scale());
    if (std::ranges::find(options_.end_tokens, token) != options_.end_tokens.end()) {
      return stop(StopReason::kEndToken);
    }
    result_.tokens.push_back(token);
    history_.push_back(token);
    if (on_token_ && !on_token_(token)) return stop(StopReason::kCaller);
    if (static_cast<int>(result_.tokens.size()) == options_.max_tokens) {
      return stop(StopReason::kMaxTokens);
    }
    return true;
  }

  // Runs the last token and what is proposed behind it.
  std::span<const int16_t> next() {
    const int left = options_.max_tokens - static_cast<int>(result_.tokens.size()) - 1;
    const int room = std::min(session_.context() - session_.position(), session_.max_rows()) - 1;
    const auto proposal = propose(history_, std::min({options_.speculate, left, room}));
    draft_.assign(proposal.begin(), proposal.end());
    result_.proposed += static_cast<int64_t>(draft_.size());
    rows_.assign(1, result_.tokens.back());
    rows_.insert(rows_.end(), draft_.begin(), draft_.end());
    return session_.run(rows_, /*all_rows=*/true);
  }

  Session& session_;
  const GenerateOptions& options_;
  const std::function<bool(int32_t)>& on_token_;
  Sampler sampler_;
  std::vector<int32_t> history_;
  std::vector<int32_t> draft_;  // in the cache behind the last accepted token
  std::vector<int32_t> rows_;
  Generated result_;
};

}  // namespace

const char* stop_reason_name(StopReason reason) {
  switch (reason) {
    case StopReason::kEndToken:
      return "end token";
    case StopReason::kMaxTokens:
      return "length";
    case StopReason::kContextFull:
      return "context full";
    case StopReason::kCaller:
      return "caller";
  }
  return "?";
}

Generated generate(Session& session, std::span<const int32_t> prompt,
                   const GenerateOptions& options, const std::function<bool(int32_t)>& on_token) {
  if (options.max_tokens < 0) fail("{} tokens to generate: give 0 or more", options.max_tokens);
  if (options.speculate < 0) fail("{} tokens to propose: give 0 or more", options.speculate);
  return Generation(session, options, on_token, prompt).run(prompt);
}

}  // namespace qnpu
