#include "server/metrics.h"

#include <fmt/format.h>

#include <algorithm>

namespace qnpu::server {
namespace {

std::string head(const char* name, const char* type, const char* help) {
  return fmt::format("# HELP {0} {2}\n# TYPE {0} {1}\n", name, type, help);
}

std::string single(const char* name, const char* type, const char* help, int64_t value) {
  return head(name, type, help) + fmt::format("{} {}\n", name, value);
}

std::string histogram(const char* name, const char* help, const Histogram& values) {
  std::string text = head(name, "histogram", help);
  int64_t below = 0;
  for (size_t i = 0; i < values.counts.size(); ++i) {
    below += values.counts[i];
    text += fmt::format("{}_bucket{{le=\"{}\"}} {}\n", name, Histogram::kBounds[i], below);
  }
  text += fmt::format("{0}_bucket{{le=\"+Inf\"}} {1}\n{0}_sum {2}\n{0}_count {1}\n", name,
                      values.count, values.sum);
  return text;
}

}  // namespace

void Histogram::add(double seconds) {
  const auto bound = std::lower_bound(kBounds.begin(), kBounds.end(), seconds);
  if (bound != kBounds.end()) ++counts[static_cast<size_t>(bound - kBounds.begin())];
  ++count;
  sum += seconds;
}

void Metrics::request(const std::string& path, int status, double seconds) {
  const std::lock_guard lock(mutex_);
  ++requests_[{path, status}];
  durations_.add(seconds);
}

void Metrics::first_token(double seconds) {
  const std::lock_guard lock(mutex_);
  first_tokens_.add(seconds);
}

void Metrics::prompt_tokens(int64_t computed, int64_t reused) {
  const std::lock_guard lock(mutex_);
  prompt_tokens_ += computed;
  reused_tokens_ += reused;
}

void Metrics::generated_tokens(int64_t count) {
  const std::lock_guard lock(mutex_);
  generated_tokens_ += count;
}

void Metrics::rejected(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  ++rejected_[reason];
}

void Metrics::step() {
  const std::lock_guard lock(mutex_);
  ++steps_;
}

std::string Metrics::text(const Gauges& gauges) const {
  const std::lock_guard lock(mutex_);
  std::string text = head("qnpu_requests_total", "counter", "Answered requests.");
  for (const auto& [key, count] : requests_) {
    text += fmt::format("qnpu_requests_total{{path=\"{}\",status=\"{}\"}} {}\n", key.first,
                        key.second, count);
  }
  text += head("qnpu_rejected_total", "counter", "Requests that were refused for a limit.");
  for (const auto& [reason, count] : rejected_) {
    text += fmt::format("qnpu_rejected_total{{reason=\"{}\"}} {}\n", reason, count);
  }
  text += single("qnpu_prompt_tokens_total", "counter", "Prompt tokens computed.", prompt_tokens_);
  text += single("qnpu_reused_tokens_total", "counter",
                 "Prompt tokens that a KV cache held already.", reused_tokens_);
  text += single("qnpu_generated_tokens_total", "counter", "Tokens generated.", generated_tokens_);
  text += single("qnpu_steps_total", "counter", "Walks of the graph.", steps_);
  text += single("qnpu_queue_length", "gauge", "Sequences that wait for a slot.", gauges.queued);
  text += single("qnpu_slots", "gauge", "Sequences that can run at a time.", gauges.slots);
  text += single("qnpu_slots_used", "gauge", "Sequences that run.", gauges.slots_used);
  text += single("qnpu_connections", "gauge", "Open connections.", gauges.connections);
  text += histogram("qnpu_time_to_first_token_seconds",
                    "From a request's arrival to its first token.", first_tokens_);
  text += histogram("qnpu_request_duration_seconds", "From a request's arrival to its last byte.",
                    durations_);
  return text;
}

}  // namespace qnpu::server
