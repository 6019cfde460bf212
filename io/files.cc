#include "io/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "io/atomic_file.h"
#include "io/unicode.h"

namespace qnpu {

namespace {

// A folder opens like a file but cannot be read; say so plainly.
void check_is_file(const std::filesystem::path& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (std::filesystem::is_directory(status)) {
    fail("{} is a folder; a file is needed here", path.string());
  }
}

constexpr size_t kMostOfReason = 200;

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

std::string read_file(const std::filesystem::path& path) {
  check_is_file(path);
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) fail("cannot read {}: {}; check the path", path.string(), std::strerror(errno));
  struct stat info {};
  ::fstat(file.fd, &info);
  std::string content;
  // A pipe has no size: grow in steps, the last of which reads nothing.
  size_t used = 0;
  content.resize(static_cast<size_t>(info.st_size) + 1);
  while (true) {
    const ssize_t count = ::read(file.fd, content.data() + used, content.size() - used);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("cannot read {}: {}; check the disk", path.string(), std::strerror(errno));
    if (count == 0) break;
    used += static_cast<size_t>(count);
    if (used == content.size()) content.resize(content.size() * 2 + 4096);
  }
  content.resize(used);
  return content;
}

bool is_deeper(const nlohmann::json& value, int levels) {
  if (!value.is_structured()) return false;
  if (levels == 0) return true;
  return std::any_of(value.begin(), value.end(),
                     [&](const auto& inner) { return is_deeper(inner, levels - 1); });
}

nlohmann::json parse_json(std::string_view text, const std::string& where) {
  nlohmann::json value;
  try {
    value = nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    // Its text begins "[json.exception.parse_error.101] parse error at line 3, column 5: ..." and
    // may go on with all of a string that does not end.
    const std::string_view what = error.what();
    const size_t start = std::min(what.find("] ") + 2, what.size());
    fail("{} is not valid JSON ({}); the file may be damaged, fetch or write it again", where,
         what.substr(start, kMostOfReason));
  }
  if (is_deeper(value, kDeepestJson)) {
    fail("{} is nested more than {} levels deep; the file may be damaged, fetch or write it again",
         where, kDeepestJson);
  }
  return value;
}

std::string json_text(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

nlohmann::json read_json(const std::filesystem::path& path) {
  return parse_json(read_file(path), path.string());
}

void write_file(const std::filesystem::path& path, std::string_view content) {
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(content)));
  file.commit();
}

void write_json(const std::filesystem::path& path, const nlohmann::json& json) {
  write_file(path, json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

std::string read_text(const std::filesystem::path& path) {
  std::string text = read_file(path);
  if (text.empty()) fail("{} is empty; give a UTF-8 text file", path.string());
  if (text.find('\0') != std::string::npos) {
    fail("{} is a binary file (it holds NUL bytes); give a UTF-8 text file", path.string());
  }
  // A stray bad byte in a large corpus is harmless; another encoding gives many.
  const size_t invalid = count_invalid_utf8(text);
  if (invalid > 4 + text.size() / 4096) {
    fail("{} is not UTF-8 ({} invalid sequences in {} bytes); convert it to UTF-8 first",
         path.string(), invalid, text.size());
  }
  return text;
}

int64_t folder_bytes(const std::filesystem::path& folder) {
  int64_t bytes = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder, error)) {
    if (entry.is_regular_file(error)) bytes += static_cast<int64_t>(entry.file_size(error));
  }
  return bytes;
}

}  // namespace qnpu
