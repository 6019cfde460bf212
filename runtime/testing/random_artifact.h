// Small random models as artifacts, for tests that need no checkpoint: random integers for weights,
// ranges observed on a forward pass in real numbers, laws made from them as freeze does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "model/artifact.h"

namespace qnpu::testing {

struct TinyShape {
  int vocab_size = 96;
  int hidden_size = 48;
  int intermediate_size = 80;
  std::vector<int> intermediate_sizes = {};
  int num_layers = 2;
  int num_heads = 6;
  int num_kv_heads = 2;
  int head_dim = 16;
};

// architecture: "llama", "qwen2" (biases on q, k, v) or "qwen3" (QK-norm).
ModelConfig tiny_config(const std::string& architecture, const TinyShape& shape = {});

// Writes the artifact into `folder` (made if missing). The same arguments give the same bytes.
// `prefix`: number of prefix tokens, random ones.
void make_random_artifact(const ModelConfig& config, const Recipe& recipe, uint64_t seed,
                          const std::filesystem::path& folder, int positions = 192, int prefix = 0);

}  // namespace qnpu::testing
