// What the engine says about a group of generations (the choices of one answer), on its way to the
// thread that writes the answer. The engine never waits here: what it can say is bounded by the
// context, so a slow reader costs memory for one answer and nobody's time.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <vector>

#include "base/clock.h"

namespace qnpu::server {

struct TokenChance {
  int32_t token = 0;
  double logprob = 0.0;  // natural logarithm of its probability
};

struct TokenOutput {
  int32_t token = 0;
  bool is_prompt = false;
  bool is_end = false;                 // an end token: not part of the text
  std::optional<double> logprob = {};  // if asked for; the first token of a prompt has none
  std::vector<TokenChance> top = {};   // the likeliest at its place, in order, and the token itself
};

enum class Finish { kNone, kStop, kLength, kCancelled, kTimeout, kFailed };

struct Event {
  int choice = 0;
  Finish finish = Finish::kNone;  // other than kNone: the choice is at its end, there is no token
  TokenOutput token = {};
};

class Channel {
 public:
  explicit Channel(int choices) : cancelled_(static_cast<size_t>(choices)) {}

  void push(Event event);
  // Waits until something was said or until `until`; empty if nothing was.
  std::vector<Event> take(Clock::time_point until);

  // The reader's wish to hear no more of a choice, or of any.
  void cancel(int choice) { cancelled_[static_cast<size_t>(choice)] = true; }
  void cancel();
  bool is_cancelled(int choice) const { return cancelled_[static_cast<size_t>(choice)]; }
  int choices() const { return static_cast<int>(cancelled_.size()); }

 private:
  std::mutex mutex_;
  std::condition_variable said_;
  std::vector<Event> events_;
  std::vector<std::atomic<bool>> cancelled_;
};

}  // namespace qnpu::server
