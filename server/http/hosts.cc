#include "server/http/hosts.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cctype>

#include "base/status.h"

namespace qnpu::server {
namespace {

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

std::string without_port(const std::string& header) {
  const size_t colon = header.rfind(':');
  const size_t bracket = header.rfind(']');
  const bool is_within = bracket != std::string::npos && colon < bracket;
  return colon == std::string::npos || is_within ? header : header.substr(0, colon);
}

}  // namespace

std::string host_in_url(const std::string& address) {
  return address.find(':') == std::string::npos ? address : "[" + address + "]";
}

void check_name(const std::string& name) {
  const bool has_port = std::ranges::count(name, ':') == 1;  // an IPv6 address has more
  const bool has_more = name.find_first_of("/[]@ ") != std::string::npos;
  if (!name.empty() && !has_port && !has_more) return;
  fail("'{}' is no name of a host: give a name or an address alone, without scheme or port", name);
}

bool is_loopback(int socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) return false;
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    return ntohl(v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
  return address.ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
}

bool is_host_of(const std::string& header, const std::vector<std::string>& names) {
  const std::string host = lower(without_port(header));
  return std::ranges::any_of(names, [&](const std::string& name) { return lower(name) == host; });
}

}  // namespace qnpu::server
