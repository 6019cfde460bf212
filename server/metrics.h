// Counts of what the server did, in Prometheus' text format.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>

namespace qnpu::server {

// Seconds, counted by upper bounds.
struct Histogram {
  static constexpr std::array<double, 14> kBounds = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                                     1,     2.5,  5,     10,   30,  60,   120};
  std::array<int64_t, kBounds.size()> counts = {};  // of each bound alone
  int64_t count = 0;
  double sum = 0.0;

  void add(double seconds);
};

// What is true at this moment.
struct Gauges {
  int queued = 0;
  int slots = 0;
  int slots_used = 0;
  int connections = 0;
};

class Metrics {
 public:
  void request(const std::string& path, int status, double seconds);
  void first_token(double seconds);
  void prompt_tokens(int64_t computed, int64_t reused);
  void generated_tokens(int64_t count);
  void rejected(const std::string& reason);
  void step();
  std::string text(const Gauges& gauges) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, int64_t> requests_;
  std::map<std::string, int64_t> rejected_;
  Histogram durations_;
  Histogram first_tokens_;
  int64_t prompt_tokens_ = 0;
  int64_t reused_tokens_ = 0;
  int64_t generated_tokens_ = 0;
  int64_t steps_ = 0;
};

}  // namespace qnpu::server
