// When there are too many connections: who leaves, and who is not let in. Neither takes a thread,
// so no number of clients that do nothing can keep one that asks from being answered.
#pragma once

#include <cstddef>
#include <deque>
#include <mutex>
#include <string>

#include "base/clock.h"

namespace qnpu::server {

// Sockets of the connections that wait for a request.
class IdleConnections {
 public:
  void add(int socket);
  void remove(int socket);  // before it is closed
  // Ends the one that has waited for longest, whose thread notices it at once. False: none waits.
  bool end_longest();

 private:
  std::mutex mutex_;
  std::deque<int> sockets_;  // in the order in which they began to wait
};

// Sockets whose clients were told that there are too many. Closing a socket with unread bytes
// resets the connection, and the client may lose the answer: they stay open for a moment.
class TurnedAway {
 public:
  TurnedAway() = default;
  ~TurnedAway();
  TurnedAway(const TurnedAway&) = delete;
  TurnedAway& operator=(const TurnedAway&) = delete;

  void add(int socket, const std::string& answer);  // says it; owns the socket
  void close_old();

 private:
  struct Told {
    int socket;
    Clock::time_point when;
  };
  void close_oldest();  // with the lock held

  std::mutex mutex_;
  std::deque<Told> told_;
};

}  // namespace qnpu::server
