// What a client is told when its request cannot be answered, in the form that OpenAI's clients
// know.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace qnpu::server {

class ApiError : public std::runtime_error {
 public:
  // `param`: the field that is wrong, or empty; `code`: a word for programs, or empty.
  ApiError(int status, const std::string& message, std::string param = "", std::string code = "")
      : std::runtime_error(message),
        status(status),
        param(std::move(param)),
        code(std::move(code)) {}

  int status;
  std::string param;
  std::string code;
};

// Throws an ApiError of status 400 about a field.
template <typename... Args>
[[noreturn]] void bad_field(const std::string& param, fmt::format_string<Args...> format,
                            Args&&... args) {
  throw ApiError(400, fmt::format(format, std::forward<Args>(args)...), param);
}

// {"error": {"message", "type", "param", "code"}}; invalid UTF-8 is replaced.
std::string error_body(const ApiError& error);

}  // namespace qnpu::server
