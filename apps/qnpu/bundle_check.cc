#include "apps/qnpu/bundle_check.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "apps/qnpu/tool_process.h"
#include "runtime/session.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;

// Greedy tokens and the logits that each was chosen from.
struct Greedy {
  std::vector<int32_t> tokens;
  std::vector<std::vector<int16_t>> logits;
};

Greedy generate_greedily(Session& session, std::span<const int32_t> prompt, int count) {
  Greedy result;
  std::span<const int16_t> logits = session.prefill(prompt);
  while (true) {
    result.logits.emplace_back(logits.begin(), logits.end());
    const auto best = std::max_element(logits.begin(), logits.end());
    result.tokens.push_back(static_cast<int32_t>(best - logits.begin()));
    if (std::ssize(result.tokens) == count) return result;
    logits = session.prefill(std::span(&result.tokens.back(), 1));
  }
}

}  // namespace

GreedyComparison compare_greedy(std::shared_ptr<const Artifact> artifact, const std::string& on,
                                BundleOptions options, const std::vector<int32_t>& prompt,
                                int count, const fs::path& work, Progress& progress) {
  const fs::path bundle = work / on;
  options.share = false;  // for the emulator
  fs::remove_all(bundle);
  fs::create_directories(bundle);
  const bool genie = on == "genie";
  (genie ? export_genie : export_ort_genai)(*artifact, options, bundle, progress);
  const auto theirs = run_tool(genie ? "npu/htp/genie.py" : "npu/htp/ort_genai.py",
                               {bundle.string(), "--count", std::to_string(count), "--tokens",
                                fmt::format("{}", fmt::join(prompt, ","))},
                               work / (on + ".log"), progress);
  Session session(artifact, {.context = options.graph.context, .max_rows = options.graph.rows});
  const Greedy ours = generate_greedily(session, prompt, count);
  GreedyComparison result;
  result.ours = ours.tokens;
  result.theirs = theirs.get<std::vector<int32_t>>();
  const auto [a, b] = std::mismatch(result.ours.begin(), result.ours.end(), result.theirs.begin(),
                                    result.theirs.end());
  result.equal = static_cast<int>(a - result.ours.begin());
  if (a != result.ours.end() && b != result.theirs.end()) {
    const std::vector<int16_t>& logits = ours.logits[static_cast<size_t>(result.equal)];
    result.lead = int64_t{logits[static_cast<size_t>(*a)]} - logits[static_cast<size_t>(*b)];
  }
  return result;
}

}  // namespace qnpu
