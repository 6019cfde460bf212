// Bytes on disk for as long as this object lives: a file without a name, mapped into memory. Nobody
// has to remove it, whatever ends the program.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace qnpu {

class NamelessFile {
 public:
  // Writes `bytes` (at least one) to a new file in `folder`. Error: disk full, no such folder, no
  // permission.
  NamelessFile(std::filesystem::path folder, std::span<const std::byte> bytes);
  ~NamelessFile();
  NamelessFile(const NamelessFile&) = delete;
  NamelessFile& operator=(const NamelessFile&) = delete;

  std::span<std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& folder() const { return folder_; }

  // Pages that were read or written count as this process's memory until here. What they hold
  // stays, and comes back when it is used again: from the system's cache, or from the disk if the
  // system needed the memory.
  void release_pages() const;

 private:
  std::filesystem::path folder_;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace qnpu
