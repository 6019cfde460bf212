#include "server/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qnpu::server {
namespace {

using ::testing::HasSubstr;

TEST(Metrics, Text) {
  Metrics metrics;
  metrics.request("/v1/completions", 200, 0.3);
  metrics.request("/v1/completions", 200, 0.7);
  metrics.request("other", 404, 500);
  metrics.first_token(0.005);
  metrics.prompt_tokens(30, 12);
  metrics.generated_tokens(4);
  metrics.rejected("queue full");
  const std::string text = metrics.text({.queued = 2, .slots = 8, .slots_used = 3});
  for (const char* line :
       {"qnpu_requests_total{path=\"/v1/completions\",status=\"200\"} 2\n",
        "qnpu_requests_total{path=\"other\",status=\"404\"} 1\n",
        "qnpu_rejected_total{reason=\"queue full\"} 1\n", "qnpu_prompt_tokens_total 30\n",
        "qnpu_reused_tokens_total 12\n", "qnpu_generated_tokens_total 4\n", "qnpu_queue_length 2\n",
        "qnpu_slots_used 3\n", "# TYPE qnpu_request_duration_seconds histogram\n",
        "qnpu_request_duration_seconds_bucket{le=\"0.25\"} 0\n",
        "qnpu_request_duration_seconds_bucket{le=\"0.5\"} 1\n",
        "qnpu_request_duration_seconds_bucket{le=\"120\"} 2\n",
        "qnpu_request_duration_seconds_bucket{le=\"+Inf\"} 3\n",
        "qnpu_request_duration_seconds_sum 501\n", "qnpu_request_duration_seconds_count 3\n",
        // A bound belongs to its bucket.
        "qnpu_time_to_first_token_seconds_bucket{le=\"0.005\"} 1\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

}  // namespace
}  // namespace qnpu::server
