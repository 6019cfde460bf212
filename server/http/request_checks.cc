#include "server/http/request_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "server/http/hosts.h"

namespace qnpu::server {
namespace {

// Equal in time, whatever the two have in common.
bool same_secret(const std::string& given, const std::string& wanted) {
  unsigned char difference = given.size() != wanted.size();
  for (size_t i = 0; i < given.size(); ++i) {
    difference |= static_cast<unsigned char>(given[i] ^ wanted[i % wanted.size()]);
  }
  return difference == 0;
}

bool is_digits(const std::string& text) {
  return !text.empty() && text.size() < 19 &&
         std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

std::string media_type(const std::string& content_type) {
  std::string type = content_type.substr(0, content_type.find(';'));
  while (!type.empty() && type.back() == ' ') type.pop_back();
  std::ranges::transform(type, type.begin(), [](unsigned char c) { return std::tolower(c); });
  return type;
}

}  // namespace

ApiError protocol_error(int status, Connection::Trouble trouble) {
  if (trouble == Connection::Trouble::kTooSlow) {
    return {408, "The request did not come in time.", "", "timeout"};
  }
  if (trouble == Connection::Trouble::kTooLarge) {
    return {431, "The headers of the request are too large."};
  }
  if (status == 414) return {414, "The URL is too long."};
  if (status >= 500) return {status, "The server could not answer this request."};
  return {status, "This is not a proper HTTP/1.1 request."};
}

void check_key(const httplib::Request& request, const std::string& key) {
  if (key.empty()) return;
  const std::string given = request.get_header_value("Authorization");
  if (!given.starts_with("Bearer ")) {
    throw ApiError(401, "You didn't provide an API key: send it as 'Authorization: Bearer KEY'.",
                   "", "invalid_api_key");
  }
  if (!same_secret(given.substr(7), key)) {
    throw ApiError(401, "Incorrect API key provided.", "", "invalid_api_key");
  }
}

void check_host(const httplib::Request& request, const std::vector<std::string>& names) {
  const size_t count = request.get_header_value_count("Host");
  if (count > 1) throw ApiError(400, "The request has more than one Host.");
  if (count == 0 || is_host_of(request.get_header_value("Host"), names)) return;
  throw ApiError(403,
                 fmt::format("This server is not called '{}'. If it should be, it must be started "
                             "with --allow-host.",
                             request.get_header_value("Host")),
                 "", "host_not_allowed");
}

void check_no_body(const httplib::Request& request) {
  const bool is_empty =
      !request.has_header("Content-Length") || request.get_header_value("Content-Length") == "0";
  if (is_empty && !request.has_header("Transfer-Encoding")) return;
  throw ApiError(400, fmt::format("{} {} takes no body.", request.method, request.path));
}

void check_body(const httplib::Request& request, size_t most_bytes) {
  const size_t lengths = request.get_header_value_count("Content-Length");
  const size_t encodings = request.get_header_value_count("Transfer-Encoding");
  if (lengths + encodings > 1) {
    throw ApiError(400, "The request states the length of its body more than once.");
  }
  // httplib takes broken chunks for the end of a body.
  if (lengths == 0) throw ApiError(411, "Send the length of the body as Content-Length.");
  const std::string length = request.get_header_value("Content-Length");
  if (!is_digits(length)) throw ApiError(400, "The Content-Length is no number.");
  if (std::stoull(length) > most_bytes) {
    throw ApiError(
        413, fmt::format("The body has {} bytes, at most {} are allowed.", length, most_bytes));
  }
  if (request.has_header("Content-Encoding")) {
    throw ApiError(415, "Bodies with a Content-Encoding are not read.");
  }
  if (media_type(request.get_header_value("Content-Type")) != "application/json") {
    throw ApiError(415, "The body must be JSON: send 'Content-Type: application/json'.");
  }
}

}  // namespace qnpu::server
