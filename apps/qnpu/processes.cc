#include "apps/qnpu/processes.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "apps/qnpu/program.h"
#include "base/status.h"

namespace qnpu {
namespace {

constexpr const char* kHost = "127.0.0.1";
constexpr int kPolls = 100;  // for an end that is near,
constexpr std::chrono::milliseconds kPoll{20};

// One that nobody listens on now.
int free_port() {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* any = reinterpret_cast<sockaddr*>(&address);
  const bool found =
      listener >= 0 && ::bind(listener, any, size) == 0 && ::getsockname(listener, any, &size) == 0;
  if (listener >= 0) ::close(listener);
  if (!found) fail("cannot find a free port for --processes: {}", std::strerror(errno));
  return ntohs(address.sin_port);
}

void set(const char* name, const std::string& value) { ::setenv(name, value.c_str(), 1); }

void set_rank(int rank) {
  for (const char* name : {"RANK", "LOCAL_RANK"}) set(name, std::to_string(rank));
}

// The last line that a process wrote.
std::string last_line(std::FILE* messages) {
  std::string text(4096, '\0');
  std::fseek(messages, 0, SEEK_END);
  const long size = std::ftell(messages);
  std::fseek(messages, std::max(0L, size - static_cast<long>(text.size())), SEEK_SET);
  text.resize(std::fread(text.data(), 1, text.size(), messages));
  while (text.ends_with('\n')) text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

}  // namespace

Processes::Processes(int count) : count_(count) {
  if (count == 1 || std::getenv("WORLD_SIZE") != nullptr) return;
  set("WORLD_SIZE", std::to_string(count));
  set("MASTER_ADDR", kHost);
  set("MASTER_PORT", std::to_string(free_port()));
  for (int rank = 1; rank < count; ++rank) start(rank);
  set_rank(0);
}

// In a process group of its own, so that Ctrl-C reaches rank 0 alone, which then ends it; and if
// rank 0 is killed, the system does.
void Processes::start(int rank) {
  set_rank(rank);
  std::unique_ptr<std::FILE, Close> messages(std::tmpfile());
  if (!messages) fail("cannot make a temporary file: {}", std::strerror(errno));
  const pid_t parent = ::getpid();
  const pid_t id = ::fork();
  if (id < 0) fail("cannot start process {} of {}: {}", rank + 1, count_, std::strerror(errno));
  if (id == 0) {
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    ::dup2(::open("/dev/null", O_WRONLY), STDOUT_FILENO);
    ::dup2(::fileno(messages.get()), STDERR_FILENO);
    ::execv("/proc/self/exe", program_arguments());
    ::_exit(127);
  }
  others_.push_back({id, std::move(messages)});
}

Processes::~Processes() {
  for (const Process& process : others_) {
    if (!process.running) continue;
    ::kill(process.id, SIGKILL);
    ::waitpid(process.id, nullptr, 0);
  }
}

void Processes::check(size_t index) {
  Process& process = others_[index];
  int status = 0;
  if (!process.running || ::waitpid(process.id, &status, WNOHANG) != process.id) return;
  process.running = false;
  const size_t number = index + 2;
  if (WIFSIGNALED(status)) {
    fail("process {} of {} was ended by signal {} ({}): is there memory for all of them?", number,
         count_, WTERMSIG(status), ::strsignal(WTERMSIG(status)));
  }
  if (WEXITSTATUS(status) == 0) return;
  std::string sentence = last_line(process.messages.get());
  const std::string beginning = "qnpu: error: ";
  if (sentence.starts_with(beginning)) sentence.erase(0, beginning.size());
  fail("process {} of {} failed: {}", number, count_, sentence);
}

void Processes::check(bool about_to_end) {
  for (int poll = 0; poll < (about_to_end ? kPolls : 1); ++poll) {
    if (poll > 0) std::this_thread::sleep_for(kPoll);
    bool running = false;
    for (size_t i = 0; i < others_.size(); ++i) {
      check(i);
      running = running || others_[i].running;
    }
    if (!running) return;
  }
}

}  // namespace qnpu
