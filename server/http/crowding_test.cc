#include "server/http/crowding.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

namespace qnpu::server {
namespace {

struct Pair {
  std::array<int, 2> ends;
  Pair() { ::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()); }
  // What the client's end hears, all of it; empty if it is not told of an end within `wait`.
  std::string heard(int wait = 1000) const {
    std::string text;
    std::array<char, 64> buffer;
    while (true) {
      pollfd wish{ends[1], POLLIN, 0};
      if (::poll(&wish, 1, wait) <= 0) return "";
      const ssize_t count = ::recv(ends[1], buffer.data(), buffer.size(), 0);
      if (count <= 0) return text + "|";
      text.append(buffer.data(), static_cast<size_t>(count));
    }
  }
};

TEST(Crowding, WhoWaitsForLongestLeaves) {
  IdleConnections idle;
  EXPECT_FALSE(idle.end_longest());
  const Pair first, second, third;
  for (const Pair& pair : {first, second, third}) idle.add(pair.ends[0]);
  idle.remove(first.ends[0]);  // it asks for something
  EXPECT_TRUE(idle.end_longest());
  EXPECT_EQ(second.heard(), "|");
  EXPECT_EQ(first.heard(10), "");
  EXPECT_EQ(third.heard(10), "");
  idle.add(first.ends[0]);
  EXPECT_TRUE(idle.end_longest());
  EXPECT_EQ(third.heard(), "|");
  EXPECT_TRUE(idle.end_longest());
  EXPECT_EQ(first.heard(), "|");
  EXPECT_FALSE(idle.end_longest());
  for (const Pair& pair : {first, second, third}) {
    ::close(pair.ends[0]);
    ::close(pair.ends[1]);
  }
}

TEST(Crowding, WhoIsTurnedAwayHearsIt) {
  TurnedAway away;
  const Pair pair;
  const std::string request = "GET";
  EXPECT_EQ(::send(pair.ends[1], request.data(), request.size(), 0), 3);
  away.add(pair.ends[0], "too many");
  away.close_old();
  EXPECT_EQ(pair.heard(), "too many|");
  EXPECT_EQ(::send(pair.ends[1], request.data(), request.size(), MSG_NOSIGNAL), 3);  // still open
  ::usleep(600 * 1000);
  away.close_old();
  EXPECT_EQ(::send(pair.ends[1], request.data(), request.size(), MSG_NOSIGNAL), -1);
  ::close(pair.ends[1]);
}

// However many come, few stay open.
TEST(Crowding, TheOldestAreClosed) {
  TurnedAway away;
  std::array<Pair, 100> pairs;
  for (const Pair& pair : pairs) away.add(pair.ends[0], "no");
  int open = 0;
  for (const Pair& pair : pairs) {
    EXPECT_EQ(pair.heard(), "no|");
    open += ::send(pair.ends[1], "x", 1, MSG_NOSIGNAL) == 1;
    ::close(pair.ends[1]);
  }
  EXPECT_EQ(open, 64);
}

}  // namespace
}  // namespace qnpu::server
