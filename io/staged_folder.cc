// StagedFolder: everything is written to a hidden folder beside the target, which one rename makes
// visible. Interrupted by a signal, the program removes that folder before it ends.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <vector>

#include "base/status.h"
#include "io/atomic_file.h"
#include "io/files.h"

namespace qnpu {

namespace {

namespace fs = std::filesystem;

// Folders to remove when the program is interrupted. A fixed array, because a signal handler may
// not allocate or lock; one program stages one or two folders at a time.
struct Pending {
  std::atomic<bool> taken{false};
  std::atomic<bool> ready{false};
  std::array<char, 4096> path{};
};
std::array<Pending, 8> pending;

// Only async-signal-safe calls: fork, exec, wait, raise.
void remove_pending(int signal) {
  for (const Pending& entry : pending) {
    if (!entry.ready) continue;
    const pid_t child = ::fork();
    if (child == 0) {
      ::execl("/bin/rm", "rm", "-rf", "--", entry.path.data(), nullptr);
      ::_exit(1);
    }
    if (child > 0) ::waitpid(child, nullptr, 0);
  }
  std::signal(signal, SIG_DFL);
  ::raise(signal);
}

// A handler that the program has set itself is left alone.
void install_handlers() {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action {};
    if (::sigaction(signal, nullptr, &action) != 0 || action.sa_handler != SIG_DFL) continue;
    action = {};
    action.sa_handler = remove_pending;
    ::sigaction(signal, &action, nullptr);
  }
}

void remember(const fs::path& path) {
  std::error_code error;
  const std::string absolute = fs::absolute(path, error).string();
  if (error || absolute.size() + 1 > pending[0].path.size()) return;
  for (Pending& entry : pending) {
    if (entry.taken.exchange(true)) continue;
    std::memcpy(entry.path.data(), absolute.c_str(), absolute.size() + 1);
    entry.ready = true;
    install_handlers();
    return;
  }
}

void forget(const fs::path& path) {
  std::error_code error;
  const std::string absolute = fs::absolute(path, error).string();
  for (Pending& entry : pending) {
    if (!entry.ready || absolute != entry.path.data()) continue;
    entry.ready = false;
    entry.taken = false;
  }
}

// One step where the file system can exchange two names; afterwards `staging` is the old folder.
bool exchange(const fs::path& staging, const fs::path& target) {
  return ::renameat2(AT_FDCWD, staging.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0;
}

// Otherwise three: the old folder is moved aside, and back again if the new one cannot come in.
void replace_in_steps(const fs::path& staging, const fs::path& target) {
  fs::path aside = staging;
  aside += ".old";
  const bool replaces = fs::exists(target);
  if (replaces) fs::rename(target, aside);
  std::error_code error;
  fs::rename(staging, target, error);
  if (error && replaces) fs::rename(aside, target);
  if (error) throw fs::filesystem_error("rename", staging, target, error);
  if (replaces) fs::remove_all(aside, error);
}

// A mount point, as a container's volume is.
bool is_mount_point(const fs::path& folder) {
  struct stat own {};
  struct stat above {};
  return ::stat(folder.c_str(), &own) == 0 && ::stat((folder / "..").c_str(), &above) == 0 &&
         own.st_dev != above.st_dev;
}

// Known before hours of work, not after them.
void check_can_be_replaced(const fs::path& target) {
  std::error_code error;
  if (fs::exists(target, error) && !fs::is_directory(target, error)) {
    fail(
        "cannot make the folder {}: a file of that name is there; remove it or choose another name",
        target.string());
  }
  const fs::path name = target.filename();
  if (name == "." || name == ".." || is_mount_point(target)) {
    fail(
        "cannot make the folder {}: {} cannot be replaced as a whole; choose a new folder inside "
        "it",
        target.string(), name == "." || name == ".." ? "it" : "it is a mount point, which");
  }
}

// A folder's lock tells that its process is alive, whatever its number; -1 if another one has it.
int lock_folder(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 || ::flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  ::close(fd);
  return -1;
}

// Processes that were killed leave theirs.
void remove_abandoned(const fs::path& target) {
  const std::string name = partial_name(target).filename().string();
  const std::string any = name.substr(0, name.rfind('-') + 1);
  const fs::path parent = target.has_parent_path() ? target.parent_path() : ".";
  std::error_code error;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(parent, error)) {
    if (entry.path().filename().string().starts_with(any)) found.push_back(entry.path());
  }
  for (const fs::path& folder : found) {
    const int fd = lock_folder(folder);
    if (fd < 0) continue;
    fs::remove_all(folder, error);
    ::close(fd);
  }
}

}  // namespace

fs::path without_trailing_slash(fs::path path) {
  path = path.lexically_normal();
  return path.has_filename() ? path : path.parent_path();
}

// A link stays one: what it names is replaced.
StagedFolder::StagedFolder(fs::path target)
    : target_(behind_links(without_trailing_slash(std::move(target)))),
      staging_(partial_name(target_)) {
  check_can_be_replaced(target_);
  remove_abandoned(target_);
  std::error_code error;
  fs::create_directories(staging_, error);
  if (error) {
    fail("cannot make the folder {}: {}; choose a place that you may write to", target_.string(),
         error.message());
  }
  lock_ = lock_folder(staging_);
  remember(staging_);
}

StagedFolder::~StagedFolder() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(staging_, ignored);
  if (!committed_) forget(staging_);
  if (lock_ >= 0) ::close(lock_);
}

void StagedFolder::commit() {
  sync_folder(staging_);
  try {
    if (exchange(staging_, target_)) {
      std::error_code ignored;  // the new folder is in place; a leftover is no reason to fail
      fs::remove_all(staging_, ignored);
    } else {
      replace_in_steps(staging_, target_);
    }
  } catch (const fs::filesystem_error& error) {
    committed_ = true;
    forget(staging_);
    fail("cannot put the finished folder at {}: {}; it is complete, and lies at {}: move it",
         target_.string(), error.code().message(), staging_.string());
  }
  committed_ = true;
  forget(staging_);
  sync_folder(target_.parent_path());
}

void check_target(const fs::path& target, const char* mark, std::string_view words,
                  std::string_view what) {
  const fs::path folder = without_trailing_slash(target);
  check_can_be_replaced(folder);
  std::error_code error;
  if (!fs::exists(folder, error) || fs::is_empty(folder, error)) return;
  const bool has_file = fs::is_regular_file(folder / mark, error);
  if (has_file && read_file(folder / mark).find(words) != std::string::npos) return;
  fail("{} is a folder, but no {}, and would be replaced; choose another", target.string(), what);
}

FolderLock::FolderLock(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error || !fs::is_directory(folder, error)) {
    fail("cannot make the folder {}: {}; choose another", folder.string(),
         error ? error.message() : "it is a file");
  }
  lock_ = lock_folder(folder);
  if (lock_ < 0) {
    fail("another process is at work in {}; wait for its end, or choose another folder",
         folder.string());
  }
}

FolderLock::~FolderLock() { ::close(lock_); }

}  // namespace qnpu
