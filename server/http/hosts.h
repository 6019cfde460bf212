// Names and addresses of the server itself.
#pragma once

#include <string>
#include <vector>

namespace qnpu::server {

// As a URL and a Host header have it: an IPv6 address in brackets.
std::string host_in_url(const std::string& address);

// Error: more than a name or an address, such as a URL or a port, which no Host would ever equal.
void check_name(const std::string& name);

// Whether only programs of this machine can reach a socket that listens.
bool is_loopback(int socket);

// Whether a Host header, with any port or none, is one of the names. Upper and lower case are the
// same; names of IPv6 addresses are in brackets.
bool is_host_of(const std::string& header, const std::vector<std::string>& names);

}  // namespace qnpu::server
