#include "server/http/hosts.h"

#include <gtest/gtest.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <stdexcept>

#include "io/test_folder.h"

namespace qnpu::server {
namespace {

TEST(Hosts, InUrls) {
  EXPECT_EQ(host_in_url("127.0.0.1"), "127.0.0.1");
  EXPECT_EQ(host_in_url("localhost"), "localhost");
  EXPECT_EQ(host_in_url("::1"), "[::1]");
  EXPECT_EQ(host_in_url("fe80::1"), "[fe80::1]");
}

TEST(Hosts, NamesAlone) {
  for (const char* name : {"models.lan", "localhost", "10.0.0.1", "::1", "fe80::1"}) {
    EXPECT_EQ(error_of([&] { check_name(name); }), "") << name;
  }
  for (const char* name : {"", "models.lan:443", "http://models.lan", "[::1]", "[::1]:80", "a b"}) {
    EXPECT_NE(error_of([&] { check_name(name); }), "") << name;
  }
}

bool is_loopback_bound_to(const char* address) {
  addrinfo wish{}, *found = nullptr;
  wish.ai_socktype = SOCK_STREAM;
  wish.ai_flags = AI_NUMERICHOST;
  if (::getaddrinfo(address, nullptr, &wish, &found) != 0) throw std::invalid_argument(address);
  const int socket = ::socket(found->ai_family, SOCK_STREAM, 0);
  const bool is_bound = ::bind(socket, found->ai_addr, found->ai_addrlen) == 0;
  ::freeaddrinfo(found);
  const bool result = is_loopback(socket);
  ::close(socket);
  if (!is_bound) throw std::runtime_error(address);
  return result;
}

TEST(Hosts, Loopback) {
  EXPECT_TRUE(is_loopback_bound_to("127.0.0.1"));
  EXPECT_TRUE(is_loopback_bound_to("127.3.2.1"));
  EXPECT_TRUE(is_loopback_bound_to("::1"));
  EXPECT_FALSE(is_loopback_bound_to("0.0.0.0"));
  EXPECT_FALSE(is_loopback_bound_to("::"));
}

TEST(Hosts, NamesWithAnyPort) {
  const std::vector<std::string> names = {"localhost", "127.0.0.1", "[::1]", "Models.lan"};
  for (const char* header : {"localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]", "[::1]:8080",
                             "models.lan:443", "localhost:"}) {
    EXPECT_TRUE(is_host_of(header, names)) << header;
  }
  for (const char* header :
       {"", ":8080", "example.com", "example.com:8080", "localhost.example.com", "localhost:1:2",
        "::1", "[::1", "[::2]", "127.0.0.1.example.com", "x[::1]", "127.0.0.2"}) {
    EXPECT_FALSE(is_host_of(header, names)) << header;
  }
}

}  // namespace
}  // namespace qnpu::server
