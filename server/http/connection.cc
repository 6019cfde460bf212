#include "server/http/connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace qnpu::server {
namespace {

thread_local Connection* the_current = nullptr;

constexpr auto kPatience = std::chrono::milliseconds(100);  // between looks at a flag
constexpr auto kGoodbye = std::chrono::milliseconds(500);
constexpr size_t kGoodbyeBytes = 1 << 20;

int milliseconds_until(Clock::time_point until) {
  using std::chrono::milliseconds;
  const auto left = std::chrono::ceil<milliseconds>(until - Clock::now());
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1 << 30));
}

}  // namespace

Connection::Connection(int socket, const ConnectionLimits& limits)
    : socket_(socket), limits_(limits) {
  const int yes = 1;  // tokens leave one by one
  ::setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  the_current = this;
}

// Closing a socket with unread bytes resets the connection, and the client may lose the answer.
Connection::~Connection() {
  the_current = nullptr;
  ::shutdown(socket_, SHUT_WR);
  const auto until = Clock::now() + kGoodbye;
  size_t read = 0;
  while (closing_ && read < kGoodbyeBytes && wait_for(POLLIN, until)) {
    const ssize_t count = ::recv(socket_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (count <= 0) break;
    read += static_cast<size_t>(count);
  }
  ::close(socket_);
}

Connection* Connection::current() { return the_current; }

bool Connection::wait_for(short events, Clock::time_point until) const {
  while (true) {
    pollfd wish{socket_, events, 0};
    const int ready = ::poll(&wish, 1, milliseconds_until(until));
    if (ready > 0) return true;
    if (ready == 0 || errno != EINTR) return false;
  }
}

bool Connection::wait_for_request(const std::atomic<bool>& stopping) {
  const auto until = Clock::now() + limits_.idle;
  while (begin_ == end_ && !wait_for(POLLIN, std::min(until, Clock::now() + kPatience))) {
    if (stopping || Clock::now() >= until) return false;
  }
  began_ = Clock::now();
  deadline_ = began_ + limits_.head;
  allowance_ = limits_.head_bytes;
  in_head_ = true;
  line_ = 0;
  line_bytes_ = 0;
  return begin_ != end_ || fill();
}

void Connection::begin_body() {
  deadline_ = Clock::now() + limits_.body;
  allowance_ = limits_.body_bytes;
  in_head_ = false;
}

bool Connection::is_gone() const {
  pollfd wish{socket_, POLLRDHUP, 0};
  return ::poll(&wish, 1, 0) > 0 && (wish.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

bool Connection::fill() {
  if (!wait_for(POLLIN, deadline_)) {
    trouble_ = Trouble::kTooSlow;
    return false;
  }
  const ssize_t count = ::recv(socket_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
  if (count <= 0) {
    trouble_ = Trouble::kBroken;
    return false;
  }
  begin_ = 0;
  end_ = static_cast<size_t>(count);
  return true;
}

// Of a line that is too long httplib only says that the request is no good.
bool Connection::is_within_line(const char* data, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (++line_bytes_ > limits_.line_bytes && line_ > 0) return false;
    if (data[i] != '\n') continue;
    ++line_;
    line_bytes_ = 0;
  }
  return true;
}

ssize_t Connection::read(char* data, size_t size) {
  if (trouble_ != Trouble::kNone) return -1;
  if (allowance_ == 0) {
    trouble_ = Trouble::kTooLarge;
    return -1;
  }
  if (Clock::now() > deadline_) {
    trouble_ = Trouble::kTooSlow;
    return -1;
  }
  if (begin_ == end_ && !fill()) return -1;
  const size_t count = std::min({size, end_ - begin_, allowance_});
  std::memcpy(data, buffer_.data() + begin_, count);
  begin_ += count;
  allowance_ -= count;
  if (in_head_ && !is_within_line(data, count)) {
    trouble_ = Trouble::kTooLarge;
    return -1;
  }
  return static_cast<ssize_t>(count);
}

ssize_t Connection::write(const char* data, size_t size) {
  const auto until = Clock::now() + limits_.write;
  size_t written = 0;
  while (written < size) {
    const ssize_t count =
        ::send(socket_, data + written, size - written, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count > 0) written += static_cast<size_t>(count);
    const bool is_full = count < 0 && (errno == EAGAIN || errno == EINTR) && !is_gone();
    const bool goes_on =
        count > 0 || (is_full && wait_for(POLLOUT | POLLRDHUP, until) && Clock::now() < until);
    if (goes_on) continue;
    trouble_ = is_full ? Trouble::kTooSlow : Trouble::kBroken;
    return -1;
  }
  return static_cast<ssize_t>(size);
}

// Addresses decide nothing here.
void Connection::get_remote_ip_and_port(std::string&, int&) const {}
void Connection::get_local_ip_and_port(std::string&, int&) const {}

}  // namespace qnpu::server
