// How the progress of a run looks: lines that are redrawn on a terminal, plain ones elsewhere. Time
// comes from outside, so that a run that others do, or did, is shown like one's own.
#pragma once

#include <cstdint>
#include <cstdio>
#include <deque>
#include <map>
#include <string>

namespace qnpu {

// What a step tells beside how far it is: "loss", "lr_scales".
using Figures = std::map<std::string, double>;

// Units per second of late.
class Pace {
 public:
  void add(double time, int64_t done);
  double per_second() const;  // 0: not known yet

 private:
  struct Mark {
    double time;
    int64_t done;
  };
  std::deque<Mark> marks_;
};

struct ViewOptions {
  std::FILE* out = stderr;
  bool quiet = false;   // shows nothing
  bool curves = false;  // draws the course of the first figure that a step tells
};

class ProgressView {
 public:
  explicit ProgressView(ViewOptions options = {});
  ~ProgressView();  // leaves no half-drawn line behind
  ProgressView(const ProgressView&) = delete;
  ProgressView& operator=(const ProgressView&) = delete;

  // `done` of `total` units of `step`, at `time` (seconds); the name of another step ends the one
  // before.
  void update(double time, const std::string& step, int64_t done, int64_t total,
              const Figures& figures = {});
  void say(const std::string& text);  // whole lines, between those of progress
  void end(double time);              // of the step, finished or not

 private:
  bool due(double time) const;
  std::string status() const;
  std::string figures_text() const;
  std::string course() const;
  void draw();
  void erase();
  void write(const std::string& text);
  void flush();
  void begin_step(double time, const std::string& step, int64_t done);
  void end_step();

  ViewOptions options_;
  bool terminal_;
  bool drawn_ = false;  // is there a line to be redrawn?
  std::string step_;
  int64_t done_ = 0;
  int64_t total_ = 0;
  Figures figures_;
  std::map<int64_t, double> curve_;  // first figure, by `done`
  Pace pace_;
  double start_ = 0.0;  // times, of this step
  double now_ = 0.0;
  double last_drawn_ = 0.0;
  int64_t last_done_ = 0;  // when it was drawn
};

// Eight heights for the values' range, at most `width` of them, each the mean of as many values.
std::string sparkline(const std::map<int64_t, double>& values, int width);

std::string format_bytes(int64_t bytes);     // "1.4 GB", "312 kB", "17 bytes"
std::string format_seconds(double seconds);  // "3.1 s", "25 s", "17 min", "2.5 h"

}  // namespace qnpu
