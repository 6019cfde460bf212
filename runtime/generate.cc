#include "runtime/generate.h"

#include <algorithm>
#include <chrono>

#include "base/status.h"

namespace qnpu {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

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
  Sampler sampler(options.sampling);
  Generated result;
  auto start = std::chrono::steady_clock::now();
  std::span<const int16_t> logits = session.prefill(prompt);
  result.prefill_seconds = seconds_since(start);
  start = std::chrono::steady_clock::now();
  const auto ends = [&](int32_t token) {
    return std::ranges::find(options.end_tokens, token) != options.end_tokens.end();
  };
  while (static_cast<int>(result.tokens.size()) < options.max_tokens) {
    const int32_t token = sampler.sample(logits, session.logits_scale());
    if (ends(token)) {
      result.reason = StopReason::kEndToken;
      break;
    }
    result.tokens.push_back(token);
    if (on_token && !on_token(token)) {
      result.reason = StopReason::kCaller;
      break;
    }
    if (static_cast<int>(result.tokens.size()) == options.max_tokens) break;
    if (session.position() == session.context()) {
      result.reason = StopReason::kContextFull;
      break;
    }
    logits = session.run({&token, 1}, /*all_rows=*/false);
  }
  result.decode_seconds = seconds_since(start);
  return result;
}

}  // namespace qnpu
