// Small file helpers: whole files in, atomic files and folders out.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace qnpu {

std::string read_file(const std::filesystem::path& path);     // Error if it cannot be read
nlohmann::json read_json(const std::filesystem::path& path);  // Error names file and position

// Whether lists and objects lie more than `levels` deep in each other. Asked after parsing, which
// needs no stack: the parser's own callback looks through a list anew for each of its objects.
bool is_deeper(const nlohmann::json& value, int levels);

// `where` begins the Error of text that is no JSON, has a number out of range, or is nested so
// deeply that copying or writing it would overflow the stack: nothing that we read has a reason to.
nlohmann::json parse_json(std::string_view text, const std::string& where);
constexpr int kDeepestJson = 64;

// In one line; strings that are not UTF-8 (names of files, say) with U+FFFD for each bad byte.
std::string json_text(const nlohmann::json& json);

// Temporary name, fsync, rename: the old file stays whole until the new one is.
void write_file(const std::filesystem::path& path, std::string_view content);
// Indented by 1; else as json_text.
void write_json(const std::filesystem::path& path, const nlohmann::json& json);

// UTF-8 text for calibration and evaluation. Error: missing, empty, binary (NUL bytes or more than
// a few invalid UTF-8 sequences).
std::string read_text(const std::filesystem::path& path);

// Of all files in a folder and in those in it.
int64_t folder_bytes(const std::filesystem::path& folder);

// A folder that appears under its name only when commit() is called; destroyed uncommitted (an
// error, Ctrl-C) it removes what it wrote. An existing folder is replaced at commit, not before.
class StagedFolder {
 public:
  // Error: no permission, a file of that name, or a folder that no rename can replace.
  explicit StagedFolder(std::filesystem::path target);
  ~StagedFolder();
  StagedFolder(const StagedFolder&) = delete;
  StagedFolder& operator=(const StagedFolder&) = delete;
  const std::filesystem::path& path() const { return staging_; }
  // Error if that fails after all: the finished folder then stays, and the sentence tells where.
  void commit();

 private:
  std::filesystem::path target_;
  std::filesystem::path staging_;
  int lock_ = -1;
  bool committed_ = false;
};

// "out/" names the same folder as "out".
std::filesystem::path without_trailing_slash(std::filesystem::path path);

// Before the work: error if a StagedFolder could not replace `target`, or if it would destroy what
// is no earlier `what` ("artifact"): a folder that neither is empty nor has the file `mark` with
// `words` in it, since other programs have files of that name too.
void check_target(const std::filesystem::path& target, const char* mark, std::string_view words,
                  std::string_view what);

// A folder for one process: made if it is not there, and locked while this lives.
class FolderLock {
 public:
  // Error: it cannot be made, or another process has it.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int lock_ = -1;
};

}  // namespace qnpu
