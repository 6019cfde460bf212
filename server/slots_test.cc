#include "server/slots.h"

#include <gtest/gtest.h>

#include <numeric>

namespace qnpu::server {
namespace {

std::vector<int32_t> count_to(int n, int32_t last = -1) {
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  std::iota(tokens.begin(), tokens.end(), 0);
  if (last >= 0) tokens.push_back(last);
  return tokens;
}

void expect(const Placement& got, int slot, int source, int tokens) {
  EXPECT_EQ(got.slot, slot);
  EXPECT_EQ(got.source, source);
  EXPECT_EQ(got.tokens, tokens);
}

TEST(Slots, TheOneThatWasFreeForLongest) {
  std::vector<Slot> slots = {{{}, false, 5}, {{}, true, 1}, {{}, false, 3}};
  expect(place(slots, count_to(40)), 2, 2, 0);
  for (Slot& slot : slots) slot.busy = true;
  expect(place(slots, count_to(40)), -1, -1, 0);
}

TEST(Slots, AConversationGoesOnWhereItWas) {
  const std::vector<Slot> slots = {{count_to(30), false, 9}, {{}, false, 1}};
  expect(place(slots, count_to(50)), 0, 0, 30);
}

TEST(Slots, ALongerTextIsKeptAndItsBeginningCopied) {
  const std::vector<Slot> slots = {{count_to(90), false, 9}, {{}, false, 1}};
  expect(place(slots, count_to(40, 7)), 1, 0, 40);
  const std::vector<Slot> busy = {{count_to(30), true, 9}, {{}, false, 1}};
  expect(place(busy, count_to(50)), 1, 0, 30);
}

TEST(Slots, TheLastTokenIsAlwaysRun) {
  const std::vector<Slot> slots = {{count_to(30), false, 1}};
  expect(place(slots, count_to(30)), 0, 0, 29);
  expect(place(slots, count_to(1)), 0, 0, 0);
}

TEST(Slots, AFewTokensAreNotWorthIt) {
  const std::vector<Slot> slots = {{count_to(5, 80), false, 9}, {{}, false, 1}};
  expect(place(slots, count_to(50)), 1, 1, 0);
}

}  // namespace
}  // namespace qnpu::server
