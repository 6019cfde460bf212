#include "server/http/crowding.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

namespace qnpu::server {
namespace {

constexpr auto kMoment = std::chrono::milliseconds(500);
constexpr size_t kMostTold = 64;

}  // namespace

void IdleConnections::add(int socket) {
  const std::lock_guard lock(mutex_);
  sockets_.push_back(socket);
}

void IdleConnections::remove(int socket) {
  const std::lock_guard lock(mutex_);
  std::erase(sockets_, socket);
}

bool IdleConnections::end_longest() {
  const std::lock_guard lock(mutex_);
  if (sockets_.empty()) return false;
  ::shutdown(sockets_.front(), SHUT_RDWR);
  sockets_.pop_front();
  return true;
}

TurnedAway::~TurnedAway() {
  while (!told_.empty()) close_oldest();
}

void TurnedAway::add(int socket, const std::string& answer) {
  // So short that it always fits into an empty send buffer.
  ::send(socket, answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  ::shutdown(socket, SHUT_WR);
  const std::lock_guard lock(mutex_);
  told_.push_back({socket, Clock::now()});
  if (told_.size() > kMostTold) close_oldest();
}

void TurnedAway::close_old() {
  const std::lock_guard lock(mutex_);
  while (!told_.empty() && Clock::now() - told_.front().when > kMoment) close_oldest();
}

void TurnedAway::close_oldest() {
  ::close(told_.front().socket);
  told_.pop_front();
}

}  // namespace qnpu::server
