#include "apps/qnpu/tool_process.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "apps/qnpu/interrupt.h"
#include "apps/qnpu/program.h"
#include "base/status.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// $QNPU_PYTHON, or the project's own environment, or what PATH has.
std::string python() {
  if (const char* named = std::getenv("QNPU_PYTHON")) return named;
  const fs::path own = fs::path(QNPU_SOURCE_DIR) / ".venv/bin/python";
  std::error_code error;
  return fs::exists(own, error) ? own.string() : "python3";
}

class Child {
 public:
  Child(const std::vector<std::string>& command, const fs::path& log) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) fail("cannot make a pipe: {}", std::strerror(errno));
    const int log_file = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (log_file < 0) fail("cannot write {}: {}", log.string(), std::strerror(errno));
    std::vector<char*> arguments;
    for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    id_ = ::fork();
    if (id_ == 0) {
      ::dup2(ends[1], STDOUT_FILENO);
      ::dup2(log_file, STDERR_FILENO);
      ::execvp(arguments[0], arguments.data());
      ::_exit(127);
    }
    ::close(ends[1]);
    ::close(log_file);
    output_ = ::fdopen(ends[0], "r");
    if (id_ < 0) fail("cannot start {}: {}", command[0], std::strerror(errno));
  }
  ~Child() {
    if (output_ != nullptr) std::fclose(output_);
    if (id_ > 0) {
      ::kill(id_, SIGTERM);
      ::waitpid(id_, nullptr, 0);
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // False at the end.
  bool read_line(std::string& line) {
    line.clear();
    int c = 0;
    while ((c = std::fgetc(output_)) != EOF && c != '\n') line += static_cast<char>(c);
    return c != EOF || !line.empty();
  }
  int wait() {
    int status = 0;
    ::waitpid(id_, &status, 0);
    id_ = -1;
    return status;
  }

 private:
  pid_t id_ = -1;
  FILE* output_ = nullptr;
};

[[noreturn]] void fail_ended(const std::string& script, int status, const fs::path& log) {
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
    fail("cannot start Python for {}; install python3, or name one in QNPU_PYTHON", script);
  }
  const std::string how = WIFSIGNALED(status)
                              ? fmt::format("was ended by signal {}", WTERMSIG(status))
                              : fmt::format("ended with code {}", WEXITSTATUS(status));
  fail("{} {} without a result; what it printed is in {}", script, how, log.string());
}

}  // namespace

json run_tool(const std::string& script, const std::vector<std::string>& arguments,
              const fs::path& log, Progress& progress) {
  std::vector<std::string> command = {python(), find_shared(script).string()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  Child child(command, log);
  json result;
  std::string line;
  while (child.read_line(line)) {
    check_interrupted();
    const json message = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!message.is_object()) continue;
    if (message.contains("error")) fail("{}", message["error"].get<std::string>());
    if (message.contains("result")) result = message["result"];
    if (!message.contains("progress")) continue;
    const json& p = message["progress"];
    progress.update(p[0].get<std::string>(), p[1].get<int64_t>(), p[2].get<int64_t>());
  }
  const int status = child.wait();
  check_interrupted();
  if (status != 0 || result.is_null()) fail_ended(script, status, log);
  return result;
}

}  // namespace qnpu
