#include "io/nameless_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "io/test_folder.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

std::vector<std::byte> some_bytes(size_t count) {
  std::vector<std::byte> bytes(count);
  uint32_t state = 1;
  for (std::byte& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<std::byte>(state >> 24);
  }
  return bytes;
}

bool equal(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
}

// Resident memory of this process that belongs to files.
int64_t resident_file_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssFile:")) return std::stoll(line.substr(8)) * 1024;
  }
  return 0;
}

TEST(NamelessFile, HoldsTheBytesAndLeavesNoName) {
  const TestFolder folder;
  const std::vector<std::byte> bytes = some_bytes(100'001);
  const NamelessFile file(folder.path(), bytes);
  EXPECT_EQ(file.folder(), folder.path());
  EXPECT_TRUE(fs::is_empty(folder.path()));
  EXPECT_TRUE(equal(file.bytes(), bytes));
}

TEST(NamelessFile, ReleasedPagesComeBackWithWhatWasWritten) {
  const TestFolder folder;
  std::vector<std::byte> bytes = some_bytes(size_t{64} << 20);
  const NamelessFile file(folder.path(), bytes);
  bytes[12'345'678] = file.bytes()[12'345'678] = std::byte{7};
  EXPECT_TRUE(equal(file.bytes(), bytes));
  const int64_t used = resident_file_bytes();
  file.release_pages();
  EXPECT_LE(resident_file_bytes(), used - (int64_t{60} << 20));
  EXPECT_TRUE(equal(file.bytes(), bytes));
}

TEST(NamelessFile, FullDiskIsOneSentenceAndLeavesNothing) {
  const TestFolder folder;
  const std::vector<std::byte> bytes = some_bytes(100'000);
  rlimit old_limit{};
  getrlimit(RLIMIT_FSIZE, &old_limit);
  const rlimit small{4096, old_limit.rlim_max};
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string error = error_of([&] { NamelessFile(folder.path(), bytes); });
  setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(error, AllOf(HasSubstr(folder.path().string()), HasSubstr("choose another place")));
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(NamelessFile, MissingFolderIsClear) {
  const TestFolder folder;
  EXPECT_THAT(error_of([&] { NamelessFile(folder.path() / "no", some_bytes(1)); }),
              AllOf(HasSubstr("no/"), HasSubstr("make its folder first")));
}

}  // namespace
}  // namespace qnpu
