#include "server/api/error.h"

#include <nlohmann/json.hpp>

#include "io/files.h"

namespace qnpu::server {
namespace {

const char* error_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 429:
      return "rate_limit_error";
    default:
      return status < 500 ? "invalid_request_error" : "server_error";
  }
}

nlohmann::json text_or_null(const std::string& text) {
  return text.empty() ? nlohmann::json() : nlohmann::json(text);
}

}  // namespace

std::string error_body(const ApiError& error) {
  const nlohmann::json body = {{"error",
                                {{"message", error.what()},
                                 {"type", error_type(error.status)},
                                 {"param", text_or_null(error.param)},
                                 {"code", text_or_null(error.code)}}}};
  return json_text(body);
}

}  // namespace qnpu::server
