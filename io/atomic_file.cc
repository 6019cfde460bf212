#include "io/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/status.h"

namespace qnpu {

namespace {

// What the user can do about a failed write.
const char* advice(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return "free some space or choose another place";
    case EFBIG:
      return "raise the file size limit (ulimit -f) or choose another place";
    case EACCES:
    case EPERM:
    case EROFS:
      return "choose a place that you may write to";
    case ENOENT:
    case ENOTDIR:
      return "make its folder first";
    default:
      return "check the path and the disk";
  }
}

namespace fs = std::filesystem;

}  // namespace

// A circle is left to open().
fs::path behind_links(fs::path target) {
  std::error_code error;
  for (int links = 0; links < 40 && fs::is_symlink(target, error); ++links) {
    target = target.parent_path() / fs::read_symlink(target, error);
  }
  return target;
}

void fail_to_write(const std::filesystem::path& name, int error) {
  fail("cannot write {}: {}; {}", name.string(), std::strerror(error), advice(error));
}

void write_all(int fd, std::span<const std::byte> bytes, const std::filesystem::path& name) {
  while (!bytes.empty()) {
    // Linux writes at most 2 GiB at once, so a short count is no error.
    const ssize_t written = ::write(fd, bytes.data(), std::min<size_t>(bytes.size(), 1u << 30));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_to_write(name, errno);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

std::filesystem::path partial_name(const std::filesystem::path& target) {
  return target.parent_path() /
         fmt::format(".{}.partial-{}", target.filename().string(), ::getpid());
}

void sync_folder(const std::filesystem::path& folder) {
  const int fd = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

AtomicFile::AtomicFile(fs::path target) : target_(behind_links(std::move(target))) {
  // rename() would fail on a folder only after everything is written.
  std::error_code ignored;
  if (fs::is_directory(target_, ignored)) fail_to_write(target_, EISDIR);
  if (!fs::is_other(target_, ignored)) temporary_ = partial_name(target_);
  const fs::path& file = temporary_.empty() ? target_ : temporary_;
  fd_ = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd_ < 0) fail_to_write(target_, errno);
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!committed_ && !temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) { write_all(fd_, bytes, target_); }

void AtomicFile::commit() {
  if (::fsync(fd_) != 0 && errno != EINVAL) fail_to_write(target_, errno);
  // Some file systems report a full disk only here.
  if (::close(std::exchange(fd_, -1)) != 0) fail_to_write(target_, errno);
  committed_ = temporary_.empty() || ::rename(temporary_.c_str(), target_.c_str()) == 0;
  if (!committed_) fail_to_write(target_, errno);
  sync_folder(target_.parent_path());
}

}  // namespace qnpu
