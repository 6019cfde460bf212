#include "io/nameless_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "base/status.h"
#include "io/atomic_file.h"

namespace qnpu {

namespace {

class OpenFile {
 public:
  explicit OpenFile(int fd) : fd_(fd) {}
  ~OpenFile() { ::close(fd_); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

 private:
  int fd_;
};

}  // namespace

NamelessFile::NamelessFile(std::filesystem::path folder, std::span<const std::byte> bytes)
    : folder_(std::move(folder)), size_(bytes.size()) {
  std::string name = (folder_ / ".qnpu-XXXXXX").string();
  const int fd = ::mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) fail_to_write(name, errno);
  const OpenFile closer(fd);  // the mapping keeps the file
  ::unlink(name.c_str());
  // Written, not mapped and copied: a full disk is then an error here, not a signal later.
  write_all(fd, bytes, name);
  void* mapping = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapping == MAP_FAILED) fail("cannot map {}: {}", name, std::strerror(errno));
  data_ = static_cast<std::byte*>(mapping);
}

NamelessFile::~NamelessFile() { ::munmap(data_, size_); }

void NamelessFile::release_pages() const { ::madvise(data_, size_, MADV_DONTNEED); }

}  // namespace qnpu
