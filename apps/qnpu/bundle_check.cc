#include "apps/qnpu/bundle_check.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "apps/qnpu/tool_process.h"
#include "apps/qnpu/verification.h"
#include "runtime/generate.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;

// By how much the logits behind `tokens` prefer `ours` to `theirs`, in steps.
int64_t lead_of(Session& session, const std::vector<int32_t>& tokens, int32_t ours,
                int32_t theirs) {
  session.reset();
  const auto logits = session.prefill(tokens);
  return int64_t{logits[static_cast<size_t>(ours)]} - logits[static_cast<size_t>(theirs)];
}

}  // namespace

GreedyComparison compare_greedy(const std::shared_ptr<const Artifact>& artifact,
                                const std::string& on, BundleOptions options,
                                const std::vector<int32_t>& prompt, int count, const fs::path& work,
                                Progress& progress) {
  const fs::path bundle = work / on;
  options.share = false;  // for the emulator
  renew_folder(bundle);
  const bool genie = on == "genie";
  (genie ? export_genie : export_ort_genai)(*artifact, options, bundle, progress);
  const auto theirs = run_tool(genie ? "npu/htp/genie.py" : "npu/htp/ort_genai.py",
                               {bundle.string(), "--count", std::to_string(count), "--tokens",
                                fmt::format("{}", fmt::join(prompt, ","))},
                               work / (on + ".log"), progress);
  Session session(artifact, {.context = options.graph.context, .max_rows = options.graph.rows});
  GreedyComparison result;
  result.ours =
      generate(session, prompt, {.sampling = {.temperature = 0}, .max_tokens = count}).tokens;
  result.theirs = theirs.get<std::vector<int32_t>>();
  const auto [a, b] = std::mismatch(result.ours.begin(), result.ours.end(), result.theirs.begin(),
                                    result.theirs.end());
  result.equal = static_cast<int>(a - result.ours.begin());
  if (a != result.ours.end() && b != result.theirs.end()) {
    std::vector<int32_t> before = prompt;
    before.insert(before.end(), result.ours.begin(), a);
    result.lead = lead_of(session, before, *a, *b);
  }
  return result;
}

}  // namespace qnpu
