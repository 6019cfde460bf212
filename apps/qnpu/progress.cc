#include "apps/qnpu/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "apps/qnpu/interrupt.h"

namespace qnpu {
namespace {

constexpr int kBarWidth = 24;

std::string bar(double share) {
  const int full = static_cast<int>(share * kBarWidth);
  return std::string(full, '#') + std::string(kBarWidth - full, '.');
}

std::string format_seconds(double seconds) {
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  if (seconds < 100) return fmt::format("{:.0f} s", seconds);
  return fmt::format("{:.0f} min", seconds / 60);
}

}  // namespace

Progress::Progress() : terminal_(::isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() {
  if (!step_.empty() && terminal_) fmt::print(stderr, "\r\033[K");
  if (!step_.empty() && done_ == total_) end_step();
}

double Progress::seconds() const {
  return std::chrono::duration<double>(Clock::now() - start_).count();
}

void Progress::update(const std::string& step, int64_t done, int64_t total) {
  check_interrupted();
  const auto now = Clock::now();
  if (step != step_) {
    if (!step_.empty()) end_step();
    step_ = step;
    start_ = now;
    drawn_ = terminal_ ? Clock::time_point() : now;
  }
  done_ = done;
  total_ = total;
  if (now - drawn_ < (terminal_ ? std::chrono::milliseconds(100) : std::chrono::seconds(30)))
    return;
  if (done == total && !terminal_) return;  // the step's own line says it
  drawn_ = now;
  draw();
}

void Progress::say(const std::string& text) {
  if (!step_.empty() && done_ == total_) end_step();
  fmt::print(stderr, "{}{}", terminal_ ? "\r\033[K" : "", text);
  std::fflush(stderr);
}

void Progress::draw() const {
  const double share = total_ > 0 ? std::min(1.0, static_cast<double>(done_) / total_) : 0.0;
  const double elapsed = seconds();
  std::string line = fmt::format("{} {} of {}", step_, done_, total_);
  if (done_ > 0 && elapsed > 0.5) {
    line += fmt::format(", {:.3g}/s, {} left", done_ / elapsed,
                        format_seconds(elapsed * (1.0 - share) / std::max(share, 1e-9)));
  }
  if (terminal_) {
    fmt::print(stderr, "\r\033[K[{}] {}", bar(share), line);
  } else {
    fmt::print(stderr, "{}\n", line);
  }
  std::fflush(stderr);
}

void Progress::end_step() {
  fmt::print(stderr, "{}{}: {}\n", terminal_ ? "\r\033[K" : "", step_, format_seconds(seconds()));
  step_.clear();
}

std::string format_bytes(int64_t bytes) {
  if (bytes < 1000) return fmt::format("{} bytes", bytes);
  if (bytes < 1000 * 1000) return fmt::format("{:.0f} kB", bytes / 1e3);
  if (bytes < 1000 * 1000 * 1000) return fmt::format("{:.1f} MB", bytes / 1e6);
  return fmt::format("{:.2f} GB", bytes / 1e9);
}

}  // namespace qnpu
