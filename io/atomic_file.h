// A file that appears under its name only when commit() is called: written under a temporary name
// beside it, synced, renamed. Destroyed uncommitted (an error while writing) it leaves no trace. A
// link stays one, and what it names is replaced; pipes and devices are written to as they are.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace qnpu {

class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path target);  // Error: no such folder, no permission
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(std::span<const std::byte> bytes);  // Error: disk full
  void commit();

 private:
  std::filesystem::path target_;
  std::filesystem::path temporary_;  // empty: `target_` itself is written to
  int fd_ = -1;
  bool committed_ = false;
};

// Writes all of them to an open file, whose name errors tell. Error: disk full.
void write_all(int fd, std::span<const std::byte> bytes, const std::filesystem::path& name);

// One sentence for the system's `error`, with what the user can do about it.
[[noreturn]] void fail_to_write(const std::filesystem::path& name, int error);

// What a link names, or the name of a link to it; it need not be there yet.
std::filesystem::path behind_links(std::filesystem::path target);

// `.<name>.partial-<pid>` beside `target`: the name of anything not yet complete.
std::filesystem::path partial_name(const std::filesystem::path& target);

// Makes a rename in `folder` durable. File systems that cannot sync a folder are left alone.
void sync_folder(const std::filesystem::path& folder);

}  // namespace qnpu
