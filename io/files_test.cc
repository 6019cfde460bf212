#include "io/files.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "io/folder_name.h"
#include "io/test_folder.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

size_t entries(const fs::path& folder) {
  return static_cast<size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

TEST(Files, RoundTripReplacesTheOldFile) {
  const TestFolder folder;
  const fs::path path = folder.path() / "a.txt";
  write_file(path, "old");
  write_file(path, std::string("new\0bytes", 9));
  EXPECT_EQ(read_file(path), std::string("new\0bytes", 9));
  EXPECT_EQ(entries(folder.path()), 1);
}

TEST(Files, NamesOfFolders) {
  EXPECT_EQ(folder_name("models/tiny"), "tiny");
  EXPECT_EQ(folder_name("models/tiny/"), "tiny");
  EXPECT_EQ(folder_name("models/other/../tiny/."), "tiny");
  EXPECT_EQ(folder_name("."), fs::current_path().filename());
  EXPECT_EQ(folder_name("/"), "");
}

TEST(Files, JsonRoundTripAndErrorPosition) {
  const TestFolder folder;
  const fs::path path = folder.path() / "a.json";
  write_json(path, {{"a", 1}, {"b", {1, 2}}});
  EXPECT_EQ(read_json(path)["b"][1], 2);
  write_file(path, "{\n  \"a\": 1,\n  \"b\"\n}");
  EXPECT_THAT(error_of([&] { read_json(path); }),
              AllOf(HasSubstr(path.string()), HasSubstr("line 4")));
}

TEST(Files, JsonThatCannotBeKept) {
  const auto nested = [](int levels) {
    return std::string(static_cast<size_t>(levels), '[') +
           std::string(static_cast<size_t>(levels), ']');
  };
  EXPECT_EQ(error_of([&] { parse_json(nested(kDeepestJson), "a.json"); }), "");
  for (const int levels : {kDeepestJson + 1, 200'000}) {
    EXPECT_THAT(error_of([&] { parse_json(nested(levels), "a.json"); }),
                AllOf(HasSubstr("a.json"), HasSubstr("more than 64 levels deep")));
  }
  EXPECT_THAT(error_of([] { parse_json(R"({"a": 1e999})", "a.json"); }),
              AllOf(HasSubstr("a.json"), HasSubstr("overflow parsing '1e999'")));
  const std::string open = "\"" + std::string(100'000, 'a');
  EXPECT_LT(error_of([&] { parse_json(open, "a.json"); }).size(), 400);
}

TEST(Files, JsonOfNamesThatAreNotUtf8) {
  const TestFolder folder;
  write_json(folder.path() / "a.json", {{"model", "caf\xE9"}});
  EXPECT_EQ(read_json(folder.path() / "a.json")["model"], "caf\xEF\xBF\xBD");
}

TEST(Files, MissingFileFolderAndParentAreClear) {
  const TestFolder folder;
  EXPECT_THAT(error_of([&] { read_file(folder.path() / "none"); }),
              AllOf(HasSubstr("none"), HasSubstr("No such file")));
  EXPECT_THAT(error_of([&] { read_file(folder.path()); }), HasSubstr("is a folder"));
  EXPECT_THAT(error_of([&] { write_file(folder.path() / "no/where", "x"); }),
              HasSubstr("make its folder first"));
  EXPECT_THAT(error_of([&] { write_file(folder.path(), "x"); }), HasSubstr("Is a directory"));
}

TEST(Files, DiskFullKeepsTheOldFileAndLeavesNoTrace) {
  const TestFolder folder;
  const fs::path path = folder.path() / "a.txt";
  write_file(path, "old");
  rlimit old_limit{};
  getrlimit(RLIMIT_FSIZE, &old_limit);
  const rlimit small{4096, old_limit.rlim_max};
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string error = error_of([&] { write_file(path, std::string(100'000, 'x')); });
  setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(error, AllOf(HasSubstr(path.string()), HasSubstr("choose another place")));
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(entries(folder.path()), 1);
}

// Root may write anywhere, so what is done under this guard is done as another user.
class Unprivileged {
 public:
  Unprivileged() : user_(geteuid()) {
    if (user_ == 0) {
      EXPECT_EQ(seteuid(65534), 0);
    }
  }
  ~Unprivileged() {
    if (user_ == 0) {
      EXPECT_EQ(seteuid(user_), 0);
    }
  }

 private:
  uid_t user_;
};

TEST(Files, LinksStayAndPipesAreWrittenTo) {
  const TestFolder folder;
  const fs::path file = folder.path() / "file", link = folder.path() / "link";
  fs::create_symlink("file", link);
  for (const char* text : {"1", "2"}) {  // not there yet; there
    write_file(link, text);
    EXPECT_TRUE(fs::is_symlink(link));
    EXPECT_EQ(read_file(file), text);
  }
  write_file("/dev/null", "3");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_EQ(entries(folder.path()), 2);
}

TEST(Files, NoPermissionIsClear) {
  const TestFolder folder;
  chmod(folder.path().c_str(), 0555);
  std::string file, staged;
  {
    const Unprivileged guard;
    file = error_of([&] { write_file(folder.path() / "a", "x"); });
    staged = error_of([&] { StagedFolder(folder.path() / "b"); });
  }
  EXPECT_THAT(file, AllOf(HasSubstr("Permission denied"), HasSubstr("may write to")));
  EXPECT_THAT(staged, AllOf(HasSubstr("Permission denied"), HasSubstr("may write to")));
  EXPECT_EQ(entries(folder.path()), 0);
  chmod(folder.path().c_str(), 0700);
}

TEST(Files, NoPermissionToLookInsideIsClear) {
  const TestFolder folder;
  chmod(folder.path().c_str(), 0000);
  const Unprivileged guard;
  const fs::path path = folder.path() / "a";
  EXPECT_THAT(error_of([&] { read_file(path); }), HasSubstr("Permission denied"));
  EXPECT_THAT(error_of([&] { write_file(path, "x"); }), HasSubstr("Permission denied"));
  EXPECT_THAT(error_of([&] { StagedFolder{path}; }), HasSubstr("Permission denied"));
}

TEST(Files, TextIsChecked) {
  const TestFolder folder;
  const fs::path path = folder.path() / "t.txt";
  const auto error_for = [&](std::string_view content) {
    write_file(path, content);
    return error_of([&] { read_text(path); });
  };
  EXPECT_EQ(error_for("plain \xC3\xA9 and a stray \xFF byte"), "");
  EXPECT_THAT(error_for(""), HasSubstr("is empty"));
  EXPECT_THAT(error_for(std::string_view("a\0b", 3)), HasSubstr("binary"));
  EXPECT_THAT(error_for("\xE9t\xE9 \xE9t\xE9 \xE9t\xE9 \xE9t\xE9"), HasSubstr("not UTF-8"));
}

TEST(StagedFolder, AppearsOnlyAtCommit) {
  const TestFolder folder;
  const fs::path target = folder.path() / "out";
  StagedFolder staged(target / "");  // a trailing slash names the same folder
  write_file(staged.path() / "a", "1");
  EXPECT_FALSE(fs::exists(target));
  staged.commit();
  EXPECT_EQ(read_file(target / "a"), "1");
  EXPECT_EQ(entries(folder.path()), 1);
}

TEST(StagedFolder, ReplacesTheOldFolderAtCommit) {
  const TestFolder folder;
  const fs::path target = folder.path() / "out";
  fs::create_directory(target);
  write_file(target / "old", "1");
  {
    StagedFolder staged(target);
    write_file(staged.path() / "new", "2");
    EXPECT_TRUE(fs::exists(target / "old"));
    staged.commit();
  }
  EXPECT_FALSE(fs::exists(target / "old"));
  EXPECT_EQ(read_file(target / "new"), "2");
  EXPECT_EQ(entries(folder.path()), 1);
}

TEST(StagedFolder, UncommittedLeavesNoTrace) {
  const TestFolder folder;
  const fs::path target = folder.path() / "out";
  fs::create_directory(target);
  write_file(target / "old", "1");
  {
    StagedFolder staged(target);
    write_file(staged.path() / "new", "2");
  }
  EXPECT_EQ(read_file(target / "old"), "1");
  EXPECT_EQ(entries(folder.path()), 1);
}

TEST(StagedFolder, RefusesAFileOfThatName) {
  const TestFolder folder;
  write_file(folder.path() / "out", "1");
  EXPECT_THAT(error_of([&] { StagedFolder(folder.path() / "out"); }), HasSubstr("a file of that"));
}

TEST(StagedFolder, RemovesWhatKilledProcessesLeft) {
  const TestFolder folder;
  const fs::path abandoned = folder.path() / ".out.partial-1",
                 held = folder.path() / ".out.partial-2";
  for (const fs::path& left : {abandoned, held}) {
    fs::create_directory(left);
    write_file(left / "file", "1");
  }
  const int lock = ::open(held.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  ASSERT_EQ(::flock(lock, LOCK_EX), 0);
  { StagedFolder staged(folder.path() / "out"); }
  EXPECT_FALSE(fs::exists(abandoned));
  EXPECT_TRUE(fs::exists(held / "file"));
  ::close(lock);
}

// No rename can replace these: said before the work, not after it.
TEST(StagedFolder, RefusesWhatCannotBeReplaced) {
  for (const char* target : {"/proc", "/proc/", ".", "..", "./"}) {
    EXPECT_THAT(error_of([&] { StagedFolder{target}; }), HasSubstr("choose a new folder inside"))
        << target;
    EXPECT_THAT(error_of([&] { check_target(target, "graph.json", "", "artifact"); }),
                HasSubstr("choose a new folder inside"))
        << target;
  }
}

TEST(StagedFolder, OthersFoldersAreNoTargets) {
  const TestFolder folder;
  const fs::path target = folder.path() / "out";
  const auto error = [&] {
    return error_of([&] { check_target(target / "", "two", "ours", "bundle"); });
  };
  EXPECT_EQ(error(), "");  // not there yet
  fs::create_directory(target);
  EXPECT_EQ(error(), "");  // empty
  write_file(target / "thesis.txt", "");
  EXPECT_THAT(error(), HasSubstr("but no bundle"));
  write_file(target / "two", "of another program");
  EXPECT_THAT(error(), HasSubstr("but no bundle"));
  write_file(target / "two", "it is ours");
  EXPECT_EQ(error(), "");
  fs::remove_all(target);
  write_file(target, "");
  EXPECT_THAT(error(), HasSubstr("a file of that"));
}

TEST(StagedFolderDeathTest, AnInterruptRemovesIt) {
  const TestFolder folder;
  EXPECT_EXIT(
      {
        StagedFolder staged(folder.path() / "out");
        write_file(staged.path() / "new", "2");
        std::raise(SIGINT);
      },
      testing::KilledBySignal(SIGINT), "");
  EXPECT_EQ(entries(folder.path()), 0);
}

}  // namespace
}  // namespace qnpu
