// Errors that a user may meet. Everything outside the execute path reports bad input by throwing
// qnpu::Error with one clear sentence: what is wrong, where, and what to do. `main` prints it and
// exits with 1. A failed check of our own logic is not an Error: use QNPU_ASSERT.
#pragma once

#include <fmt/format.h>

#include <cassert>
#include <stdexcept>
#include <string>
#include <utility>

#define QNPU_ASSERT(condition) assert(condition)

namespace qnpu {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws Error with a formatted sentence.
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace qnpu
