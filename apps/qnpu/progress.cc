#include "apps/qnpu/progress.h"

#include "apps/qnpu/interrupt.h"
#include "apps/qnpu/run_log.h"

namespace qnpu {
namespace {

constexpr double kLogged = 1.0;  // seconds between two events of a step that has no figures

}  // namespace

void Progress::update(const std::string& step, int64_t done, int64_t total,
                      const Figures& figures) {
  check_interrupted();
  const double now = seconds_since(start_);
  view_.update(now, step, done, total, figures);
  const bool edge = step != logged_step_ || done == total;
  if (!edge && figures.empty() && now - logged_ < kLogged) return;
  logged_step_ = step;
  logged_ = now;
  nlohmann::json event = figures;
  if (figures.empty()) event = nlohmann::json::object();
  event.update({{"step", step}, {"done", done}, {"total", total}});
  log_event("progress", std::move(event));
}

void Progress::say(const std::string& text) {
  if (text.empty()) return;
  view_.say(text);
  log_event("message", {{"text", text.substr(0, text.find_last_not_of('\n') + 1)}});
}

}  // namespace qnpu
