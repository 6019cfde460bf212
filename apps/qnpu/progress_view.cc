#include "apps/qnpu/progress_view.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <numeric>
#include <vector>

#include "apps/qnpu/program.h"

namespace qnpu {
namespace {

constexpr int kBarWidth = 24;
constexpr int kCurveWidth = 40;
constexpr double kRedraw = 0.1;      // seconds, on a terminal;
constexpr double kPlain = 5.0;       // elsewhere at least so many between two lines,
constexpr double kPlainSlow = 60.0;  // and so many if less than a hundredth of the step was done
constexpr double kPaceSeconds = 30.0;
constexpr size_t kPaceMarks = 5;

std::string bar(double share) {
  const int full = static_cast<int>(share * kBarWidth);
  return std::string(full, '#') + std::string(kBarWidth - full, '.');
}

double share_of(int64_t done, int64_t total) {
  return total > 0 ? std::clamp(static_cast<double>(done) / total, 0.0, 1.0) : 0.0;
}

// Of `count` parts of nearly the same length, or of each value if there are fewer.
std::vector<double> means_of_parts(const std::vector<double>& values, size_t count) {
  count = std::min(values.size(), count);
  std::vector<double> means;
  for (size_t i = 0; i < count; ++i) {
    const auto begin = values.begin() + static_cast<std::ptrdiff_t>(i * values.size() / count);
    const auto end = values.begin() + static_cast<std::ptrdiff_t>((i + 1) * values.size() / count);
    means.push_back(std::accumulate(begin, end, 0.0) / static_cast<double>(end - begin));
  }
  return means;
}

std::string format_pace(double per_second) {
  return per_second < 1 ? fmt::format("{} each", format_seconds(1 / per_second))
                        : fmt::format("{:.3g}/s", per_second);
}

// ASCII is cut to the width of the terminal: a line that wraps could not be redrawn.
size_t columns(std::FILE* out) {
  struct winsize size {};
  if (::ioctl(::fileno(out), TIOCGWINSZ, &size) != 0 || size.ws_col < 2) return 79;
  return size.ws_col - 1u;
}

// One on which a line can be redrawn.
bool is_terminal(std::FILE* out) {
  const char* kind = std::getenv("TERM");
  return ::isatty(::fileno(out)) != 0 && (kind == nullptr || std::string(kind) != "dumb");
}

}  // namespace

// The first marks go early: a run that goes on where one stopped seems to do all that in no time.
void Pace::add(double time, int64_t done) {
  if (marks_.size() > 1 && time - marks_[marks_.size() - 2].time < 1.0) marks_.pop_back();
  marks_.push_back({time, done});
  while (marks_.size() > kPaceMarks && marks_[1].time < time - kPaceSeconds) marks_.pop_front();
}

double Pace::per_second() const {
  if (marks_.empty()) return 0.0;
  const double seconds = marks_.back().time - marks_.front().time;
  const auto done = static_cast<double>(marks_.back().done - marks_.front().done);
  return seconds < 0.5 || done <= 0 ? 0.0 : done / seconds;
}

ProgressView::ProgressView(ViewOptions options)
    : options_(options), terminal_(is_terminal(options.out)) {}

ProgressView::~ProgressView() {
  try {
    erase();
    if (!step_.empty() && done_ == total_) end_step();
  } catch (const std::exception&) {  // whoever writes there next will be told
  }
}

// Work of hours does not end because nobody can read how far it is.
void ProgressView::write(const std::string& text) { std::fputs(text.c_str(), options_.out); }

// Where it is what a command prints, it has to arrive.
void ProgressView::flush() {
  if (options_.out == stdout) return check_output();
  std::fflush(options_.out);
}

void ProgressView::update(double time, const std::string& step, int64_t done, int64_t total,
                          const Figures& figures) {
  if (step != step_) begin_step(time, step, done);
  now_ = time;
  done_ = done;
  total_ = total;
  pace_.add(time, done);
  if (!figures.empty()) {
    figures_ = figures;
    curve_[done] = figures.contains("loss") ? figures.at("loss") : figures.begin()->second;
  }
  if (due(time)) draw();
}

void ProgressView::begin_step(double time, const std::string& step, int64_t done) {
  if (!step_.empty()) end_step();
  step_ = step;
  start_ = last_drawn_ = time;
  if (terminal_) last_drawn_ -= kRedraw;
  last_done_ = done;
  pace_ = {};
  figures_.clear();
  curve_.clear();
}

bool ProgressView::due(double time) const {
  const double passed = time - last_drawn_;
  if (terminal_) return passed >= kRedraw;
  if (done_ == total_ || passed < kPlain) return false;  // the step's own line says it
  return passed >= kPlainSlow || share_of(done_ - last_done_, total_) >= 0.01;
}

void ProgressView::say(const std::string& text) {
  if (options_.quiet) return;
  erase();
  if (!step_.empty() && done_ == total_) end_step();
  write(text);
  flush();
}

void ProgressView::end(double time) {
  now_ = time;
  erase();
  if (!step_.empty()) end_step();
}

// "tune 34 of 80, 22 s each, 17 min left, loss 2.813"
std::string ProgressView::status() const {
  std::string line = fmt::format("{} {} of {}", step_, done_, total_);
  const double pace = pace_.per_second();
  if (pace > 0) {
    const auto left = static_cast<double>(std::max<int64_t>(total_ - done_, 0));
    line += fmt::format(", {}, {} left", format_pace(pace), format_seconds(left / pace));
  }
  return line + figures_text();
}

std::string ProgressView::figures_text() const {
  std::string text;
  for (const auto& [name, value] : figures_) text += fmt::format(", {} {:.4g}", name, value);
  return text;
}

std::string ProgressView::course() const {
  if (!options_.curves || curve_.size() < 2) return "";
  return sparkline(curve_, kCurveWidth);
}

void ProgressView::draw() {
  last_drawn_ = now_;
  last_done_ = done_;
  if (options_.quiet) return;
  if (!terminal_) {
    write(status() + "\n");
  } else {
    const std::string line = fmt::format("[{}] {}", bar(share_of(done_, total_)), status());
    const std::string curve = course();
    write("\r\033[J" + line.substr(0, columns(options_.out)));
    if (!curve.empty()) write(fmt::format("\r\n{}\r\033[A", curve));
    drawn_ = true;
  }
  flush();
}

void ProgressView::erase() {
  if (!drawn_) return;
  write("\r\033[J");
  drawn_ = false;
  flush();
}

void ProgressView::end_step() {
  erase();
  std::string line = fmt::format("{}: {}", step_, format_seconds(now_ - start_));
  line += figures_text();
  const std::string curve = course();
  if (!curve.empty()) line += "  " + curve;
  if (!options_.quiet) write(line + "\n");
  flush();
  step_.clear();
}

std::string sparkline(const std::map<int64_t, double>& values, int width) {
  constexpr const char* kHeights[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  std::vector<double> finite;
  for (const auto& [key, value] : values) {
    if (std::isfinite(value)) finite.push_back(value);
  }
  const std::vector<double> means = means_of_parts(finite, static_cast<size_t>(width));
  if (means.empty()) return "";
  const auto [least, most] = std::minmax_element(means.begin(), means.end());
  std::string text;
  for (const double mean : means) {
    const double height = *most > *least ? (mean - *least) / (*most - *least) : 0.0;
    text += kHeights[std::min(7, static_cast<int>(height * 8))];
  }
  return text;
}

std::string format_bytes(int64_t bytes) {
  if (bytes < 1000) return fmt::format("{} bytes", bytes);
  if (bytes < 1000 * 1000) return fmt::format("{:.0f} kB", bytes / 1e3);
  if (bytes < 1000 * 1000 * 1000) return fmt::format("{:.1f} MB", bytes / 1e6);
  return fmt::format("{:.2f} GB", bytes / 1e9);
}

std::string format_seconds(double seconds) {
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  if (seconds < 100) return fmt::format("{:.0f} s", seconds);
  if (seconds < 100 * 60) return fmt::format("{:.0f} min", seconds / 60);
  return fmt::format("{:.1f} h", seconds / 3600);
}

}  // namespace qnpu
