// Sessions that write: all at once with a callback, or token by token as an iterator.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>

#include "base/status.h"
#include "io/chat_template.h"
#include "python/guarded_session.h"
#include "runtime/generate.h"

namespace qnpu::python {
namespace {

using StopTokens = std::optional<Tokens>;
using OnToken = nb::typed<nb::callable, nb::object(int32_t)>;

Tokens stop_tokens(const GuardedSession& session, const StopTokens& given) {
  if (given) return *given;
  const std::vector<int> own = end_tokens(session.artifact()->folder);
  return {own.begin(), own.end()};
}

// The session's state belongs to the generation until the last callback has returned.
Generated generate_all(GuardedSession& session, const Tokens& prompt, int max_tokens,
                       double temperature, int top_k, double top_p, uint64_t seed,
                       const StopTokens& stop, int speculate,
                       const std::optional<OnToken>& on_token) {
  const GenerateOptions options = {
      {temperature, top_k, top_p, seed}, max_tokens, speculate, stop_tokens(session, stop)};
  std::function<bool(int32_t)> report;
  if (on_token) {
    report = [&on_token](int32_t token) {
      const nb::gil_scoped_acquire acquire;
      return !(*on_token)(token).is(nb::handle(Py_False));
    };
  }
  return session.call([&](Session& s) { return generate(s, prompt, options, report); });
}

// Yields what generate_all() collects. Each step is a call of its own, so other calls may come
// between; one that moves the session ends the iteration with an Error.
class TokenIterator {
 public:
  TokenIterator(std::shared_ptr<GuardedSession> session, Tokens prompt, int max_tokens,
                const SamplingOptions& sampling, Tokens stop)
      : session_(std::move(session)),
        sampler_(sampling),
        stop_(std::move(stop)),
        next_(std::move(prompt)),
        left_(max_tokens) {
    if (max_tokens < 0) fail("{} tokens to generate: give 0 or more", max_tokens);
  }

  int32_t next() {
    if (!reason_ && left_ == 0) reason_ = StopReason::kMaxTokens;
    const std::optional<int32_t> token =
        reason_ ? std::nullopt : session_->call([this](Session& s) { return step(s); });
    if (!token) throw nb::stop_iteration();
    --left_;
    return *token;
  }

  std::optional<const char*> stop_reason() const {
    return reason_ ? std::optional(stop_reason_name(*reason_)) : std::nullopt;
  }

 private:
  std::optional<int32_t> step(Session& session) {
    if (position_ && *position_ != session.position()) {
      fail("the session went from position {} to {} while it was writing", *position_,
           session.position());
    }
    if (position_ && session.position() == session.context()) {
      reason_ = StopReason::kContextFull;
      return std::nullopt;
    }
    const std::vector<int16_t> logits = append(session, next_, /*all_rows=*/false);
    position_ = session.position();
    const int32_t token = sampler_.sample(logits, session.logits_scale());
    next_ = {token};
    if (std::ranges::find(stop_, token) == stop_.end()) return token;
    reason_ = StopReason::kEndToken;
    return std::nullopt;
  }

  std::shared_ptr<GuardedSession> session_;
  Sampler sampler_;
  Tokens stop_;
  Tokens next_;  // to run before the next token is drawn
  int left_;
  std::optional<int> position_;  // behind the tokens run so far
  std::optional<StopReason> reason_;
};

TokenIterator stream(const std::shared_ptr<GuardedSession>& session, const Tokens& prompt,
                     int max_tokens, double temperature, int top_k, double top_p, uint64_t seed,
                     const StopTokens& stop) {
  return {
      session, prompt, max_tokens, {temperature, top_k, top_p, seed}, stop_tokens(*session, stop)};
}

void add_generated(nb::module_& module) {
  nb::class_<Generated>(module, "Generated", "What generate() wrote.")
      .def_ro("tokens", &Generated::tokens)
      .def_prop_ro(
          "stop_reason", [](const Generated& g) { return stop_reason_name(g.reason); },
          "'end token', 'length', 'context full', or 'caller': on_token returned False.")
      .def_ro("proposed", &Generated::proposed, "Tokens proposed by `speculate`.")
      .def_ro("accepted", &Generated::accepted, "How many of them were right.")
      .def_ro("prefill_seconds", &Generated::prefill_seconds)
      .def_ro("decode_seconds", &Generated::decode_seconds,
              "Of all tokens but the first, which the prompt's logits give.");
}

}  // namespace

void add_generation(nb::module_& module, nb::class_<GuardedSession>& session) {
  add_generated(module);
  nb::class_<TokenIterator>(module, "TokenIterator", "Tokens as stream() writes them.")
      .def(
          "__iter__", [](nb::handle self) { return self; },
          nb::sig("def __iter__(self) -> TokenIterator"))
      .def("__next__", &TokenIterator::next)
      .def_prop_ro("stop_reason", &TokenIterator::stop_reason,
                   "As in Generated; None until the end.");
  session.def("generate", generate_all, nb::arg("prompt"), nb::kw_only(),
              nb::arg("max_tokens") = 256, nb::arg("temperature") = 0.0, nb::arg("top_k") = 0,
              nb::arg("top_p") = 1.0, nb::arg("seed") = 0, nb::arg("stop_tokens") = nb::none(),
              nb::arg("speculate") = 0, nb::arg("on_token") = nb::none(),
              "Continues the session's tokens with `prompt`, and writes. `stop_tokens`: by default "
              "the model's own; they are not part of the result. `speculate`: tokens proposed at a "
              "time from what was said before, which changes nothing but the time. `on_token` sees "
              "each token at once and ends the text by returning False.");
  session.def("stream", stream, nb::arg("prompt"), nb::kw_only(), nb::arg("max_tokens") = 256,
              nb::arg("temperature") = 0.0, nb::arg("top_k") = 0, nb::arg("top_p") = 1.0,
              nb::arg("seed") = 0, nb::arg("stop_tokens") = nb::none(),
              "The tokens of generate(), one by one, as an iterator.");
}

}  // namespace qnpu::python
