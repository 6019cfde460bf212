#include "server/http/hosts.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cctype>

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
