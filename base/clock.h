// Time as a stopwatch shows it.
#pragma once

#include <chrono>

namespace qnpu {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace qnpu
