#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/status.h"
#include "io/safetensors.h"

namespace qnpu {

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("cannot read {}: {}; check the path", path.string(), std::strerror(errno));
  struct stat info {};
  ::fstat(fd, &info);
  if (!S_ISREG(info.st_mode) || info.st_size == 0) {
    ::close(fd);
    fail("{} is {}; fetch or write it again", path.string(),
         S_ISREG(info.st_mode) ? "empty" : "not a file");
  }
  size_ = static_cast<size_t>(info.st_size);
  void* mapping = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
  const int error = errno;
  ::close(fd);  // the mapping keeps the file
  if (mapping == MAP_FAILED) fail("cannot map {}: {}", path.string(), std::strerror(error));
  data_ = static_cast<const std::byte*>(mapping);
}

MappedFile::~MappedFile() { ::munmap(const_cast<std::byte*>(data_), size_); }

void release_mapped_pages(const void* data, size_t bytes) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (address + page - 1) / page * page;
  const uintptr_t end = (address + bytes) / page * page;
  if (first < end) ::madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
}

}  // namespace qnpu
