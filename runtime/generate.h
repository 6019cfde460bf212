// The generation loop: prompt, then one token at a time until something ends it.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "runtime/sampling.h"
#include "runtime/session.h"

namespace qnpu {

struct GenerateOptions {
  SamplingOptions sampling = {};
  int max_tokens = 256;
  int speculate = 0;  // tokens proposed at a time by prompt look-up (speculate.h); the result is
                      // the same, only the time is not
  std::vector<int32_t> end_tokens = {};  // not part of the result
};

enum class StopReason { kEndToken, kMaxTokens, kContextFull, kCaller };
const char* stop_reason_name(StopReason reason);  // "end token", "length", "context full", "caller"

struct Generated {
  std::vector<int32_t> tokens;
  StopReason reason = StopReason::kMaxTokens;
  int64_t proposed = 0;  // tokens of speculation, and how many of them were right
  int64_t accepted = 0;
  double prefill_seconds = 0.0;
  double decode_seconds = 0.0;  // of all tokens but the first, which the prompt's logits give
};

// Continues the session's sequence with `prompt`. `on_token` sees each new token at once and ends
// the generation by returning false; it may be empty. Error: an empty prompt, one that is longer
// than the room left in the context, or one with a token out of range.
Generated generate(Session& session, std::span<const int32_t> prompt,
                   const GenerateOptions& options,
                   const std::function<bool(int32_t)>& on_token = {});

}  // namespace qnpu
