// Sessions: tokens in, logits out.
#include "runtime/session.h"

#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "base/status.h"
#include "python/guarded_session.h"

namespace qnpu::python {
namespace {

constexpr std::chrono::milliseconds kBetweenLooks(100);

Session open(const Model& model, const SessionOptions& options) {
  const std::shared_ptr<const GuardedSession> other = model.latest.lock();
  const nb::gil_scoped_release release;
  return other ? other->another(options) : Session(model.artifact, options);
}

std::shared_ptr<GuardedSession> make(Model& model, int context, int threads, int max_rows) {
  SessionOptions options;
  options.context = context;
  options.threads = threads;
  options.max_rows = max_rows;
  return open_session(model, options);
}

// [T, V], or [V] of the last row.
template <typename T>
nb::ndarray<nb::numpy, T> rows(std::vector<T> logits, size_t count, bool all_rows) {
  const size_t vocab = logits.size() / (all_rows ? count : 1);
  if (all_rows) return to_numpy(std::move(logits), {count, vocab});
  return to_numpy(std::move(logits), {vocab});
}

auto append_integers(GuardedSession& session, const Tokens& tokens, bool all_rows) {
  auto logits = session.call([&](Session& s) { return append(s, tokens, all_rows); });
  return rows(std::move(logits), tokens.size(), all_rows);
}

auto append_real(GuardedSession& session, const Tokens& tokens, bool all_rows) {
  auto logits = session.call(
      [&](Session& s) { return to_real(append(s, tokens, all_rows), s.logits_scale()); });
  return rows(std::move(logits), tokens.size(), all_rows);
}

// A failed prefill leaves an empty session: the old tokens' rows are overwritten.
auto prefill(GuardedSession& session, const Tokens& tokens, bool all_rows) {
  auto logits = session.call([&](Session& s) {
    s.reset();
    return to_real(append(s, tokens, all_rows), s.logits_scale());
  });
  return rows(std::move(logits), tokens.size(), all_rows);
}

// A property of the session, which nobody else may be changing meanwhile.
template <typename Get>
auto reading(Get get) {
  return [get](GuardedSession& session) { return session.call(get); };
}

}  // namespace

GuardedSession::GuardedSession(const Model& model, const SessionOptions& options)
    : artifact_(model.artifact), session_(open(model, options)), looked_(Clock::now()) {
  session_.set_watch([this](const Node&) { look_for_signals(); });
}

GuardedSession::Alone::Alone(std::atomic<bool>& busy) : busy_(busy) {
  if (!busy_.exchange(true)) return;
  fail("the session is at work on another call; give each thread a session of its own");
}

// Not at every node: each look takes the GIL, for which other threads may let us wait.
void GuardedSession::look_for_signals() {
  const auto now = Clock::now();
  if (now - looked_ < kBetweenLooks) return;
  looked_ = now;
  const nb::gil_scoped_acquire acquire;
  if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

std::shared_ptr<GuardedSession> open_session(Model& model, const SessionOptions& options) {
  auto session = std::make_shared<GuardedSession>(model, options);
  model.latest = session;
  return session;
}

std::vector<float> to_real(const std::vector<int16_t>& integers, double scale) {
  std::vector<float> real(integers.size());
  std::transform(integers.begin(), integers.end(), real.begin(),
                 [scale](int16_t q) { return static_cast<float>(scale) * q; });
  return real;
}

std::vector<int16_t> append(Session& session, std::span<const int32_t> tokens, bool all_rows) {
  const int room = session.context() - session.position();
  if (tokens.size() > static_cast<size_t>(room)) {
    fail("{} tokens, but the context of {} positions has room for {}; open a session with more",
         tokens.size(), session.context(), room);
  }
  if (!all_rows || tokens.empty()) {
    const auto row = session.prefill(tokens);
    return {row.begin(), row.end()};
  }
  std::vector<int16_t> logits;
  for (size_t begin = 0; begin < tokens.size(); begin += session.max_rows()) {
    const size_t count = std::min<size_t>(session.max_rows(), tokens.size() - begin);
    const auto piece = session.run(tokens.subspan(begin, count), /*all_rows=*/true);
    logits.insert(logits.end(), piece.begin(), piece.end());
  }
  return logits;
}

void add_session(nb::module_& module) {
  nb::class_<GuardedSession> session(
      module, "Session",
      "The integer runtime with a KV cache: one sequence. A call that fails leaves it as it was, "
      "but for prefill(), which leaves it empty.");
  session
      .def(nb::new_(&make), nb::arg("model"), nb::kw_only(), nb::arg("context") = 0,
           nb::arg("threads") = 0, nb::arg("max_rows") = 128,
           "`context`: positions of the cache, those of the prefix included (0: what the artifact "
           "allows, at most 4096); `threads`: 0 means all cores; `max_rows`: tokens that go "
           "through the model together.")
      .def("append", append_real, nb::arg("tokens"), nb::kw_only(), nb::arg("all_rows") = false,
           "Runs tokens behind those already seen. Real logits [V] for the successor of the last "
           "one, or with `all_rows` [T, V] of each.")
      .def("append_integers", append_integers, nb::arg("tokens"), nb::kw_only(),
           nb::arg("all_rows") = false,
           "The same as the integers that the model computes: real = logits_scale * integer.")
      .def("prefill", prefill, nb::arg("tokens"), nb::kw_only(), nb::arg("all_rows") = false,
           "append() on an empty session: reset() first.")
      .def(
          "truncate",
          [](GuardedSession& session, int position) {
            session.call([position](Session& s) { s.truncate(position); });
          },
          nb::arg("position"), "Forgets the tokens from this position on.")
      .def("reset", reading([](Session& s) { s.reset(); }), "Forgets all tokens.")
      .def_prop_ro("position", reading([](Session& s) { return s.position(); }),
                   "Positions of the cache that are taken, the prefix included.")
      .def_prop_ro("context", reading([](Session& s) { return s.context(); }),
                   "Positions of the cache.")
      .def_prop_ro("logits_scale", reading([](Session& s) { return s.logits_scale(); }));
  add_generation(module, session);
}

}  // namespace qnpu::python
