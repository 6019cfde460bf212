// One client's connection as the stream that httplib reads a request from and writes the answer to,
// with limits that hold for a request as a whole: a client that sends or reads byte by byte cannot
// stay for longer than one that does nothing.
#pragma once

#include <httplib.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <string>

#include "base/clock.h"

namespace qnpu::server {

struct ConnectionLimits {
  std::chrono::milliseconds idle{15000};   // between requests
  std::chrono::milliseconds head{10000};   // from a request's first byte to the end of its headers
  std::chrono::milliseconds body{30000};   // from there to the end of its body
  std::chrono::milliseconds write{30000};  // for one piece of an answer
  size_t head_bytes = 64 << 10;
  size_t line_bytes = 8 << 10;  // of a header, its end included; httplib takes no more
  size_t body_bytes = 4 << 20;
};

class Connection : public httplib::Stream {
 public:
  enum class Trouble { kNone, kTooSlow, kTooLarge, kBroken };

  // Owns the socket.
  Connection(int socket, const ConnectionLimits& limits);
  // Says goodbye such that a client that is still sending can read what it was told.
  ~Connection() override;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  static Connection* current();  // of the request that this thread is answering

  // False: nothing came, the client went away, or `stopping` became true.
  bool wait_for_request(const std::atomic<bool>& stopping);
  void begin_body();  // the head has been read
  void close_after_answer() { closing_ = true; }
  bool is_closing() const { return closing_; }
  Trouble trouble() const { return trouble_; }
  Clock::time_point began() const { return began_; }  // the request

  // The client closed the connection, or its half of it: it waits for nothing any more.
  bool is_gone() const;

  bool is_readable() const override { return true; }
  bool is_writable() const override { return trouble_ == Trouble::kNone && !is_gone(); }
  ssize_t read(char* data, size_t size) override;
  ssize_t write(const char* data, size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  int socket() const override { return socket_; }

 private:
  bool wait_for(short events, Clock::time_point until) const;
  bool fill();
  bool is_within_line(const char* data, size_t count);

  int socket_;
  ConnectionLimits limits_;
  std::array<char, 8192> buffer_;
  size_t begin_ = 0;  // of what is in the buffer and was not read yet
  size_t end_ = 0;
  size_t allowance_ = 0;  // bytes that may still be read
  bool in_head_ = false;
  int line_ = 0;           // of the head; 0 is the request's own, whose length httplib looks at
  size_t line_bytes_ = 0;  // read of it
  Clock::time_point deadline_;
  Clock::time_point began_;
  Trouble trouble_ = Trouble::kNone;
  bool closing_ = false;
};

}  // namespace qnpu::server
