#include "server/channel.h"

#include <utility>

namespace qnpu::server {

void Channel::push(Event event) {
  {
    const std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
  }
  said_.notify_one();
}

std::vector<Event> Channel::take(Clock::time_point until) {
  std::unique_lock lock(mutex_);
  said_.wait_until(lock, until, [&] { return !events_.empty(); });
  return std::exchange(events_, {});
}

void Channel::cancel() {
  for (auto& cancelled : cancelled_) cancelled = true;
}

}  // namespace qnpu::server
