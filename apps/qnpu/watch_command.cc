// Follows a run by its log, from another terminal or afterwards.
#include <fcntl.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "apps/qnpu/commands.h"
#include "apps/qnpu/interrupt.h"
#include "apps/qnpu/options.h"
#include "apps/qnpu/program.h"
#include "apps/qnpu/progress_view.h"
#include "apps/qnpu/run_log.h"
#include "base/status.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::chrono::milliseconds kPoll{200};

struct Options {
  fs::path run;
  bool json = false;
};

// The lines that are complete by now; the end of one that is not waits for the next call.
class Lines {
 public:
  explicit Lines(const fs::path& path) : file_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (file_ < 0) fail("cannot read {}: {}", path.string(), std::strerror(errno));
  }
  ~Lines() { ::close(file_); }
  Lines(const Lines&) = delete;
  Lines& operator=(const Lines&) = delete;

  std::vector<std::string> read() {
    std::vector<std::string> lines;
    char buffer[1 << 16];
    for (ssize_t count; (count = ::read(file_, buffer, sizeof buffer)) > 0;) {
      rest_.append(buffer, static_cast<size_t>(count));
    }
    size_t begin = 0;
    for (size_t end; (end = rest_.find('\n', begin)) != std::string::npos; begin = end + 1) {
      lines.push_back(rest_.substr(begin, end - begin));
    }
    rest_.erase(0, begin);
    return lines;
  }

 private:
  int file_;
  std::string rest_;
};

// What is shown of the events; of several runs in one log that went on one after another, the last
// one's end counts.
class Watch {
 public:
  Watch(const fs::path& log, bool json)
      : log_(log), json_(json), view_({.out = stdout, .quiet = json, .curves = true}) {}

  void add(const std::string& line) {
    try {
      show(json::parse(line));
      if (json_) fmt::print("{}\n", line);
    } catch (const json::exception&) {  // a run that was killed within it, or another program's
      ++unreadable_;
    }
  }

  bool ended() const { return end_.is_object(); }
  // On another machine, where nobody here can see whether it lives.
  bool elsewhere() const {
    return start_.is_object() && start_.at("host") != "" && start_.at("host") != host_name();
  }

  void report() {
    if (unreadable_ > 0) {
      tell("qnpu: {} line{} of {} cannot be read; left out\n", unreadable_,
           unreadable_ == 1 ? "" : "s", log_.string());
    }
    if (!ended() || start_.is_null()) fail_abandoned();
    const int code = end_.at("code").get<int>();
    if (code != 0)
      fail("the run ended with code {}: {}", code, end_.at("error").get<std::string>());
    if (json_) return;
    const double seconds = end_.at("time").get<double>() - start_.value("time", 0.0);
    fmt::print("finished after {}\n", format_seconds(seconds));
  }

 private:
  void show(const json& event) {
    const std::string kind = event.at("event");
    const double time = event.at("time");
    if (kind == "start") {
      view_.end(last_);
      view_.say(heading(event));
      start_ = {{"time", time},
                {"host", event.value("host", "")},
                {"process", event.value("process", 0)}};
      end_ = json();
    } else if (kind == "progress") {
      view_.update(time, event.at("step"), event.at("done"), event.at("total"), figures_of(event));
    } else if (kind == "message") {
      view_.say(event.at("text").get<std::string>() + "\n");
    } else if (kind == "end") {
      view_.end(time);
      end_ = {{"time", time},
              {"code", event.at("code").get<int>()},
              {"error", event.value("error", "")}};
    }
    last_ = time;
  }

  static std::string heading(const json& event) {
    const auto words = event.value("command", std::vector<std::string>());
    return fmt::format("{}\n", fmt::join(words, " "));
  }

  // Every other number of the event.
  static Figures figures_of(const json& event) {
    Figures figures;
    for (const auto& [key, value] : event.items()) {
      if (key == "time" || key == "done" || key == "total" || !value.is_number()) continue;
      figures[key] = value.get<double>();
    }
    return figures;
  }

  [[noreturn]] void fail_abandoned() {
    view_.end(last_);
    if (start_.is_null()) fail("{} holds no run", log_.string());
    fail(
        "the run has died without a word: its process {} is gone; was it killed, or was there too "
        "little memory?",
        start_.at("process").dump());
  }

  fs::path log_;
  bool json_;
  ProgressView view_;
  json start_, end_;
  double last_ = 0.0;
  int unreadable_ = 0;
};

void run(const Options& options) {
  const fs::path path = find_run_log(options.run);
  Lines lines(path);
  Watch watch(path, options.json);
  // Asked before reading: what is read then is all that a process which is gone has written. Twice,
  // since one that has just started may not have the log open yet.
  for (int gone = 0;; std::this_thread::sleep_for(kPoll)) {
    check_interrupted();
    const bool written = writer_of(path) != 0;
    for (const std::string& line : lines.read()) {
      check_interrupted();
      watch.add(line);
    }
    check_output();
    if (watch.ended() && !written) break;
    gone = written || watch.elsewhere() ? 0 : gone + 1;
    if (gone == 2) break;
  }
  watch.report();
}

}  // namespace

void add_watch_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("watch", "Follow a run from another terminal");
  command->group(kMake)->footer("qnpu watch my-model\nqnpu watch my-run --json");
  const auto options = std::make_shared<Options>();
  command->add_option("run", options->run, "Folder of a run (--run), or the artifact it makes")
      ->required()
      ->type_name(kFolder);
  add_json_flag(*command, options->json, "Print the events, one JSON object a line");
  command->callback([options] { run(*options); });
}

}  // namespace qnpu
