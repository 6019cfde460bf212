// Progress of long work: shown on standard error (progress_view.h), and told to the run's log
// (run_log.h). Every update is also where Ctrl-C takes effect.
#pragma once

#include <cstdint>
#include <string>

#include "apps/qnpu/progress_view.h"
#include "base/clock.h"

namespace qnpu {

class Progress {
 public:
  explicit Progress(bool quiet = false) : view_({.quiet = quiet}) {}

  // `done` of `total` units of `step`; another step's name ends the one before. Throws Interrupted.
  void update(const std::string& step, int64_t done, int64_t total, const Figures& figures = {});
  void say(const std::string& text);  // whole lines, between those of progress

 private:
  ProgressView view_;
  const Clock::time_point start_ = Clock::now();
  std::string logged_step_;
  double logged_ = 0.0;  // seconds since start
};

}  // namespace qnpu
