// One run of quantize(): what all its steps read, and what they find out.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "base/clock.h"
#include "quant/calibration_text.h"
#include "quant/fidelity.h"
#include "quant/quantize.h"
#include "quant/report.h"
#include "quant/unrotated.h"
#include "quant/work_folder.h"

namespace qnpu {

struct Run {
  explicit Run(const QuantizeOptions& options)
      : o(options),
        recipe(options.recipe),
        work(options.work.empty() ? options.out.string() + ".work" : options.work.string()) {}

  bool learns() const { return recipe.learn || recipe.tune; }
  bool learns_rotations() const { return recipe.learn && recipe.learn->rotations; }

  int positions(const ModelConfig& config) const {
    return std::min(config.max_positions, o.max_positions);
  }

  void report(const std::string& step, int done, int total) const {
    if (o.progress) o.progress(step, done, total);
  }

  void report_learned(const std::string& section, int step, int total,
                      const std::map<std::string, double>& figures) const {
    if (!o.learned) return report(section, step, total);
    o.learned(section, step, total, figures);
  }

  WindowProgress progress_of(const std::string& step) const {
    return [this, step](int done, int total) { report(step, done, total); };
  }

  // The text that ranges are found on.
  std::vector<Window> range_windows() const {
    const auto most = static_cast<size_t>(range_window_count(o.length));
    return few(texts.calibration, most, static_cast<size_t>(o.length));
  }

  // The text that outlier channels are found on: as much, from the other end. On tokens by whose
  // values channels were divided none stands out any more, and ranges would be too narrow.
  std::vector<Window> split_windows() const {
    const auto most = static_cast<size_t>(range_window_count(o.length));
    return last_few(texts.calibration, most, static_cast<size_t>(o.length));
  }

  void say(const std::string& text) const {
    if (o.say && o.workers.first()) o.say(text);
  }

  const QuantizeOptions& o;
  Recipe recipe;  // with the rules that sensitivity and budget add
  TextWindows texts;
  WorkFolder work;
  Findings findings;
  Rotations rotations;  // by which the model is turned, or where learned ones start
  UnrotatedInputs unrotated;
  FloatRun float_run;  // what the artifact is compared with
  QuantizeResult result;
};

// Adds the seconds of its life to `total`.
class Stopwatch {
 public:
  explicit Stopwatch(double& total) : total_(total) {}
  ~Stopwatch() { total_ += seconds_since(begin_); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& total_;
  Clock::time_point begin_ = Clock::now();
};

}  // namespace qnpu
