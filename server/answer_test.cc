#include "server/answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qnpu::server {
namespace {

TextPart text_part(const std::string& text, std::vector<int32_t> ids) {
  TextPart part{text, {}};
  for (const int32_t id : ids) part.tokens.emplace_back().output.token = id;
  return part;
}

TEST(Answer, PartsJoinInTheirOrder) {
  AnswerPart whole{2, text_part("The ", {5})};
  append(whole, {2, text_part("river", {6, 7})});
  EXPECT_EQ(whole.finish, Finish::kNone);
  append(whole, {2, text_part(".", {8}), Finish::kStop});
  append(whole, {2, {}});  // says nothing, and so does not take the end away
  EXPECT_EQ(whole.choice, 2);
  EXPECT_EQ(whole.text.text, "The river.");
  EXPECT_EQ(whole.finish, Finish::kStop);
  std::vector<int32_t> ids;
  for (const TextToken& token : whole.text.tokens) ids.push_back(token.output.token);
  EXPECT_THAT(ids, ::testing::ElementsAre(5, 6, 7, 8));
}

}  // namespace
}  // namespace qnpu::server
