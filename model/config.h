// What a checkpoint is: its architecture and sizes, read from a Hugging Face `config.json`. The
// rest of the program knows no model by name; it reads these values.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace qnpu {

// llama3 rope scaling; factor 1 means none.
struct RopeScaling {
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  int original_max_position = 8192;
  bool operator==(const RopeScaling&) const = default;
};

struct ModelConfig {
  std::string architecture;  // "llama", "qwen2" or "qwen3"
  int vocab_size = 0;
  int hidden_size = 0;        // D
  int intermediate_size = 0;  // F
  // F of each layer, where they differ (an exact transform of the MLP may add channels); empty: all
  // have intermediate_size. Never set by a checkpoint.
  std::vector<int> intermediate_sizes;
  int num_layers = 0;
  int num_heads = 0;     // H
  int num_kv_heads = 0;  // divides H
  int head_dim = 0;
  double rms_norm_eps = 1e-5;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  int max_positions = 0;
  bool tied_embeddings = false;
  bool qkv_bias = false;  // Qwen2; also Llama with attention_bias (then o_proj has one too)
  bool o_bias = false;
  bool qk_norm = false;  // Qwen3
  bool operator==(const ModelConfig&) const = default;

  int mlp_size(int layer) const {
    return intermediate_sizes.empty() ? intermediate_size
                                      : intermediate_sizes.at(static_cast<size_t>(layer));
  }
};

// Throws Error (one sentence naming the file and the key) on a missing key, an unknown architecture
// or rope type, sliding-window attention, sizes or keys that do not fit together. keys that
// contradict each other.
ModelConfig load_config(const std::filesystem::path& config_json);
ModelConfig config_from_huggingface(const nlohmann::json& json, const std::string& where);

// The form in which an artifact keeps it: every field, by its name here (intermediate_sizes only if
// it is not empty). Error if a field is missing or sizes do not fit together.
nlohmann::json to_json(const ModelConfig& config);
ModelConfig config_from_json(const nlohmann::json& json);

// Inverse frequencies [head_dim / 2] of the rotary embedding, scaling applied.
std::vector<double> rope_inverse_frequencies(const ModelConfig& config);

}  // namespace qnpu
