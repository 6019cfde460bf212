// A session as Python may use it: by one call at a time, without the interpreter's lock, to be
// interrupted by Ctrl-C, and unchanged by a call that fails.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "base/clock.h"
#include "python/bindings.h"
#include "runtime/session.h"

namespace qnpu::python {

class GuardedSession {
 public:
  GuardedSession(const Model& model, const SessionOptions& options);

  // Calls use(session) without the GIL. Error if another call is still at work, be it of another
  // thread or the one that a callback was called from. If it throws, the session goes back to where
  // it was; its rows of before are still there.
  template <typename Use>
  auto call(Use use) {
    const Alone alone(busy_);
    const nb::gil_scoped_release release;
    std::vector<int> before;
    for (int i = 0; i < session_.sequences(); ++i) before.push_back(session_.position(i));
    try {
      return use(session_);
    } catch (...) {
      for (int i = 0; i < session_.sequences(); ++i) {
        session_.truncate(std::min(before[i], session_.position(i)), i);
      }
      throw;
    }
  }

  const std::shared_ptr<const Artifact>& artifact() const { return artifact_; }
  // Shares its weights; this one may be at work meanwhile.
  Session another(const SessionOptions& options) const { return Session(session_, options); }

 private:
  class Alone {
   public:
    explicit Alone(std::atomic<bool>& busy);
    ~Alone() { busy_ = false; }
    Alone(const Alone&) = delete;
    Alone& operator=(const Alone&) = delete;

   private:
    std::atomic<bool>& busy_;
  };

  void look_for_signals();

  std::shared_ptr<const Artifact> artifact_;
  Session session_;
  std::atomic<bool> busy_ = false;
  Clock::time_point looked_;
};

// Shares the weights of the model's latest session, if there is one.
std::shared_ptr<GuardedSession> open_session(Model& model, const SessionOptions& options);

std::vector<float> to_real(const std::vector<int16_t>& integers, double scale);

// Logits' integers of tokens that are appended: [T, V], or [V] of the last one.
std::vector<int16_t> append(Session& session, std::span<const int32_t> tokens, bool all_rows);

// Adds the methods that generate; session.cc has the others.
void add_generation(nb::module_& module, nb::class_<GuardedSession>& session);

}  // namespace qnpu::python
