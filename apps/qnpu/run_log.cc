#include "apps/qnpu/run_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "apps/qnpu/program.h"
#include "base/status.h"
#include "io/atomic_file.h"
#include "io/files.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct Log {
  int file = -1;
  fs::path path;
  bool temporary = false;  // to be removed if the run fails
  json result;
};

Log& log() {
  static Log the_log;
  return the_log;
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// Held as long as the process lives, and by it alone: processes that it starts do not inherit it.
struct flock whole_file() {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

void lock_log(int file, const fs::path& path) {
  struct flock lock = whole_file();
  if (::fcntl(file, F_SETLK, &lock) == 0 || (errno != EACCES && errno != EAGAIN)) return;
  fail("another process ({}) is writing {}; wait for its end, or choose another folder",
       writer_of(path), path.string());
}

// A run that was killed, or a full disk, may have left a line without its end.
bool ends_within_a_line(int file) {
  const off_t size = ::lseek(file, 0, SEEK_END);
  char last = '\n';
  return size > 0 && ::pread(file, &last, 1, size - 1) == 1 && last != '\n';
}

void write_line(const char* event, json values, const char* before = "") {
  values["time"] = now();
  values["event"] = event;
  const std::string line = before + json_text(values) + "\n";
  write_all(log().file, std::as_bytes(std::span(line)), log().path);
}

json command_line() {
  json words = {"qnpu"};
  for (char** word = program_arguments() + 1; *word != nullptr; ++word) words.push_back(*word);
  return words;
}

bool is_first_process() {
  const char* rank = std::getenv("RANK");
  return rank == nullptr || std::strcmp(rank, "0") == 0;
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (!error && fs::is_directory(folder, error)) return;
  fail("cannot make the run folder {}: {}; choose another", folder.string(),
       error ? error.message() : "it is a file");
}

}  // namespace

void open_run_log(const RunFolder& run, json about) {
  if (!is_first_process()) return;
  make_folder(run.path);
  const fs::path path = run.path / "log.jsonl";
  const bool fresh = !fs::exists(path);
  const int file = ::open(path.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) fail_to_write(path, errno);
  try {
    lock_log(file, path);
    log() = {file, path, fresh && !run.keep, {}};
    about["command"] = command_line();
    about["folder"] = fs::current_path().string();
    about["version"] = QNPU_VERSION;
    about["process"] = ::getpid();
    about["host"] = host_name();
    write_line("start", std::move(about), ends_within_a_line(file) ? "\n" : "");
  } catch (const Error&) {
    ::close(file);
    log().file = -1;
    if (fresh) ::unlink(path.c_str());
    throw;
  }
}

void log_event(const char* event, json values) {
  if (log().file < 0) return;
  try {
    write_line(event, std::move(values));
  } catch (const Error& error) {
    tell("qnpu: the run goes on without its log: {}\n", error.what());
    ::close(std::exchange(log().file, -1));
  }
}

void log_result(json result) { log().result = std::move(result); }

void close_run_log(int code, const std::string& error) {
  if (log().file < 0) return;
  json values = {{"code", code}};
  if (code == 0) values["result"] = std::move(log().result);
  if (code != 0) values["error"] = error;
  log_event("end", std::move(values));
  const fs::path folder = log().path.parent_path();
  std::error_code ignored;
  const bool alone = std::distance(fs::directory_iterator(folder, ignored), {}) == 1;
  if (code != 0 && log().temporary && alone) fs::remove_all(folder, ignored);
  if (log().file >= 0) ::close(std::exchange(log().file, -1));
}

void check_apart(const fs::path& run, const fs::path& out) {
  std::error_code error;
  const fs::path inner = fs::weakly_canonical(without_trailing_slash(run), error);
  const fs::path outer = fs::weakly_canonical(without_trailing_slash(out), error);
  if (error || run.empty()) return;
  if (std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first != outer.end()) {
    return;
  }
  fail("the run's folder {} would be replaced by the output {}; choose one beside it", run.string(),
       out.string());
}

fs::path run_folder_of(const fs::path& out) {
  return without_trailing_slash(out).string() + ".work";
}

fs::path find_run_log(const fs::path& run_or_artifact) {
  std::error_code ignored;
  for (const fs::path& folder : {run_or_artifact, run_folder_of(run_or_artifact)}) {
    const fs::path log = folder / "log.jsonl";
    if (fs::exists(log, ignored) && !fs::is_directory(log, ignored)) return log;
  }
  fail(
      "there is no run in {}: neither {} nor {} is there; name the folder that was given with "
      "--run, "
      "or the artifact that `qnpu quantize` makes",
      run_or_artifact.string(), (run_or_artifact / "log.jsonl").string(),
      (run_folder_of(run_or_artifact) / "log.jsonl").string());
}

pid_t writer_of(const fs::path& log) {
  const int file = ::open(log.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  struct flock lock = whole_file();
  const bool held = ::fcntl(file, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
  ::close(file);
  return held ? lock.l_pid : 0;
}

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "";
}

}  // namespace qnpu
