// Progress of long work on standard error: one line that is redrawn on a terminal (bar, rate, time
// left), plain lines elsewhere. Every update is also where Ctrl-C takes effect.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace qnpu {

class Progress {
 public:
  Progress();
  ~Progress();  // leaves no half-drawn line behind
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `done` of `total` units of `step`; another step's name ends the one before. Throws Interrupted.
  void update(const std::string& step, int64_t done, int64_t total);
  void say(const std::string& text);  // whole lines, between those of progress

 private:
  using Clock = std::chrono::steady_clock;
  double seconds() const;  // of this step
  void draw() const;
  void end_step();

  bool terminal_;
  std::string step_;
  int64_t done_ = 0;
  int64_t total_ = 0;
  Clock::time_point start_;
  Clock::time_point drawn_;
};

// "1.4 GB", "312 kB", "17 bytes"
std::string format_bytes(int64_t bytes);

}  // namespace qnpu
