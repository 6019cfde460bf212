// Runs a deployment bundle in the runtime that it is for, on the emulator of the NPU, beside the
// integer runtime: the same greedy tokens are expected.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "apps/qnpu/bundles.h"

namespace qnpu {

struct GreedyComparison {
  std::vector<int32_t> ours, theirs;
  int equal = 0;  // tokens before the first difference
  // At the first difference, in steps of our logits: by how much our token leads theirs.
  int64_t lead = 0;
};

// `on` is "genie" or "ort-genai". The bundle is made in `work`, with a binary for each graph.
GreedyComparison compare_greedy(const std::shared_ptr<const Artifact>& artifact,
                                const std::string& on, BundleOptions options,
                                const std::vector<int32_t>& prompt, int count,
                                const std::filesystem::path& work, Progress& progress);

}  // namespace qnpu
