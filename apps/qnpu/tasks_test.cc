#include "apps/qnpu/tasks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/files.h"
#include "io/test_folder.h"
#include "model/tokens.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

class TasksTest : public testing::Test {
 protected:
  Task load(const std::string& content, int limit = 0) const {
    write_file(file_, content);
    return load_task(tokenizer_, file_, limit);
  }
  std::string refusal(const std::string& content) const {
    return error_of([&] { load(content); });
  }
  std::vector<int32_t> tokens(const std::string& text) const {
    const std::vector<int> ids = token_sequence(tokenizer_, text);
    return {ids.begin(), ids.end()};
  }

  TestFolder folder_;
  fs::path file_ = folder_.path() / "quiz.v1.jsonl";
  Tokenizer tokenizer_ = Tokenizer::load(fs::path(QNPU_SOURCE_DIR) / "testdata/models/tiny-llama");
};

TEST_F(TasksTest, SequencesAreTheTextsTokens) {
  const Task task = load(
      "{\"query\": \"The river\", \"choices\": [\"runs\", \"caf\\u00e9\"], \"gold\": 1}\n"
      "\n"
      "{\"gold\": 0, \"choices\": [\"a\", \"b\", \"c\"], \"query\": \"One of\"}");
  EXPECT_EQ(task.name, "quiz.v1");
  ASSERT_EQ(task.items.size(), 2);
  const TaskItem& item = task.items[0];
  EXPECT_EQ(item.line, 1);
  EXPECT_EQ(item.gold, 1);
  EXPECT_EQ(item.context, tokens("The river").size());
  EXPECT_THAT(item.sequences,
              testing::ElementsAre(tokens("The river runs"), tokens("The river caf\u00e9")));
  EXPECT_THAT(item.characters, testing::ElementsAre(4, 4));
  EXPECT_EQ(task.items[1].line, 3);
  EXPECT_EQ(task.items[1].sequences.size(), 3);
  const size_t longest = std::max(item.sequences[0].size(), item.sequences[1].size());
  EXPECT_EQ(task.longest(), longest - 1);
}

TEST_F(TasksTest, SpaceBehindTheQueryBelongsToTheContinuation) {
  const Task task = load("{\"query\": \"The river \\n\", \"choices\": [\"runs\"], \"gold\": 0}");
  EXPECT_EQ(task.items[0].context, tokens("The river").size());
  EXPECT_EQ(task.items[0].sequences[0], tokens("The river \n runs"));
}

TEST_F(TasksTest, LimitCountsItems) {
  const std::string line = "{\"query\": \"A\", \"choices\": [\"b\", \"c\"], \"gold\": 0}\n";
  EXPECT_EQ(load(line + "\n" + line + line, 2).items.size(), 2);
  EXPECT_EQ(load(line + "\n" + line + line, 9).items.size(), 3);
  EXPECT_EQ(load(line + "what is not read\n", 1).items.size(), 1);
}

TEST_F(TasksTest, BadLinesAreNamed) {
  const std::string good = "{\"query\": \"A\", \"choices\": [\"b\"], \"gold\": 0}\n";
  const auto second = [&](const std::string& line) { return refusal(good + line); };
  const auto says = [](const char* words) {
    return AllOf(HasSubstr("quiz.v1.jsonl, line 2"), HasSubstr(words));
  };
  EXPECT_THAT(second("{\"query\": "), says("JSON object"));
  EXPECT_THAT(second("[1]"), says("JSON object"));
  EXPECT_THAT(second("{\"query\": \"A\", \"choices\": [\"b\"], \"gold\": 0, \"answer\": 1}"),
              says("answer"));
  EXPECT_THAT(second("{\"choices\": [\"b\"], \"gold\": 0}"), says("query"));
  EXPECT_THAT(second("{\"query\": \"A\", \"gold\": 0}"), says("choices"));
  EXPECT_THAT(second("{\"query\": \"A\", \"choices\": [], \"gold\": 0}"), says("choices"));
  EXPECT_THAT(second("{\"query\": \"A\", \"choices\": [\"b\", \"\"], \"gold\": 0}"),
              says("choice 1"));
  EXPECT_THAT(second("{\"query\": \"A\", \"choices\": [\"b\", 3], \"gold\": 0}"), says("choice 1"));
  EXPECT_THAT(second("{\"query\": \"A\", \"choices\": [\"b\"]}"), says("gold"));
  for (const char* gold : {"1", "-1", "0.0", "\"0\"", "18446744073709551615"}) {
    EXPECT_THAT(
        second(fmt::format("{{\"query\": \"A\", \"choices\": [\"b\"], \"gold\": {}}}", gold)),
        says("gold"))
        << gold;
  }
}

TEST_F(TasksTest, FilesWithoutItemsOrWithOneNameAreRefused) {
  EXPECT_THAT(refusal("\n \n"), HasSubstr("no items"));
  EXPECT_THAT(error_of([&] { load_task(tokenizer_, folder_.path() / "none.jsonl", 0); }),
              HasSubstr("none.jsonl"));
  load("{\"query\": \"A\", \"choices\": [\"b\"], \"gold\": 0}");
  EXPECT_THAT(error_of([&] { load_tasks(tokenizer_, {file_, file_}, 0); }), HasSubstr("one name"));
}

}  // namespace
}  // namespace qnpu
