#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "base/status.h"
#include "io/files.h"

namespace qnpu {
namespace {

using nlohmann::json;

const json& require(const json& j, const char* key, const std::string& where) {
  if (!j.contains(key) || j.at(key).is_null()) fail("{}: the key '{}' is missing", where, key);
  return j.at(key);
}

int require_int(const json& j, const char* key, const std::string& where) {
  const json& value = require(j, key, where);
  if (!value.is_number_integer() || value.get<int64_t>() <= 0 || value.get<int64_t>() > INT32_MAX) {
    fail("{}: '{}' must be a positive integer, not {}", where, key, value.dump());
  }
  return value.get<int>();
}

bool present(const json& j, const char* key) { return j.contains(key) && !j.at(key).is_null(); }

double number_or(const json& j, const char* key, double otherwise, const std::string& where) {
  if (!present(j, key)) return otherwise;
  if (!j.at(key).is_number()) fail("{}: '{}' must be a number", where, key);
  return j.at(key).get<double>();
}

bool bool_or(const json& j, const char* key, bool otherwise, const std::string& where) {
  if (!present(j, key)) return otherwise;
  if (!j.at(key).is_boolean()) fail("{}: '{}' must be true or false", where, key);
  return j.at(key).get<bool>();
}

std::string string_or(const json& j, const char* key, const std::string& otherwise,
                      const std::string& where) {
  if (!present(j, key)) return otherwise;
  if (!j.at(key).is_string()) fail("{}: '{}' must be a string", where, key);
  return j.at(key).get<std::string>();
}

// "llama", "mistral", "qwen2", "qwen3", or "".
std::string family_named(const std::string& name) {
  if (name == "LlamaForCausalLM" || name == "llama") return "llama";
  if (name == "MistralForCausalLM" || name == "mistral") return "mistral";
  if (name == "Qwen2ForCausalLM" || name == "qwen2") return "qwen2";
  if (name == "Qwen3ForCausalLM" || name == "qwen3") return "qwen3";
  return "";
}

// Both names must be known; where they differ the type counts, as for transformers.
std::string family_of(const json& j, const std::string& where) {
  const std::string type = family_named(string_or(j, "model_type", "", where));
  std::string name = string_or(j, "model_type", "", where);
  if (present(j, "architectures") && j.at("architectures").is_array() &&
      !j.at("architectures").empty() && j.at("architectures")[0].is_string()) {
    name = j.at("architectures")[0].get<std::string>();
  }
  const std::string family = family_named(name);
  if (!family.empty()) return type.empty() ? family : type;
  fail(
      "{}: the architecture '{}' is not supported; supported are LlamaForCausalLM, "
      "MistralForCausalLM, Qwen2ForCausalLM and Qwen3ForCausalLM",
      where, name);
}

RopeScaling scaling_of(const json& rope, const std::string& where) {
  std::string type = string_or(rope, "rope_type", "", where);
  if (type.empty()) type = string_or(rope, "type", "default", where);
  if (type == "default") return {};
  if (type != "llama3") {
    fail("{}: rope type '{}' is not supported (default and llama3 are)", where, type);
  }
  RopeScaling scaling;
  scaling.factor = number_or(rope, "factor", 0.0, where);
  for (const char* key : {"low_freq_factor", "high_freq_factor"}) require(rope, key, where);
  scaling.low_freq_factor = number_or(rope, "low_freq_factor", 1.0, where);
  scaling.high_freq_factor = number_or(rope, "high_freq_factor", 4.0, where);
  scaling.original_max_position =
      require_int(rope, "original_max_position_embeddings", where + " (rope scaling)");
  if (!(scaling.factor >= 1.0) || !(scaling.high_freq_factor > scaling.low_freq_factor)) {
    fail("{}: the llama3 rope scaling needs factor >= 1 and high_freq_factor > low_freq_factor",
         where);
  }
  return scaling;
}

struct Rope {
  double theta;
  RopeScaling scaling;
  bool operator==(const Rope&) const = default;
};

// `rope` may say everything; what it does not say stands beside it in `j`.
Rope rope_of(json rope, const json& j, const std::string& where) {
  if (!rope.is_object()) fail("{}: rope_scaling and rope_parameters must be objects", where);
  for (const auto& [key, value] : rope.items()) {
    if (value.is_object()) fail("{}: a rope of its own for '{}' is not supported", where, key);
  }
  const double in_all = number_or(j, "partial_rotary_factor", 1.0, where);
  if (number_or(rope, "partial_rotary_factor", in_all, where) != 1.0) {
    fail("{}: a partial_rotary_factor other than 1 is not supported", where);
  }
  const char* positions = "original_max_position_embeddings";
  if (present(j, positions)) {
    if (present(rope, positions) && rope.at(positions) != j.at(positions)) {
      fail("{}: two different values of {} are given; keep the one that is meant", where,
           positions);
    }
    rope[positions] = j.at(positions);
  }
  const double theta = number_or(j, "rope_theta", 10000.0, where);
  return {number_or(rope, "rope_theta", theta, where), scaling_of(rope, where)};
}

// Old files have rope_theta and rope_scaling, new ones rope_parameters with both in it. Versions of
// transformers differ in which they believe if both are there.
void read_rope(const json& j, const std::string& where, ModelConfig& config) {
  std::vector<Rope> ropes;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (present(j, key) && !j.at(key).empty()) ropes.push_back(rope_of(j.at(key), j, where));
  }
  if (ropes.empty()) ropes.push_back(rope_of(json::object(), j, where));
  if (ropes.front() != ropes.back()) {
    fail("{}: rope_scaling and rope_parameters contradict each other; keep the one that is meant",
         where);
  }
  config.rope_theta = ropes[0].theta;
  config.rope_scaling = ropes[0].scaling;
  if (!(config.rope_theta > 1.0)) {
    fail("{}: rope_theta must be greater than 1, not {}", where, config.rope_theta);
  }
}

// Keys left out have transformers' defaults: a Mistral without sliding_window has one. A window as
// wide as the longest text is none.
void refuse_windows(const json& j, const std::string& family, const std::string& where) {
  if (present(j, "layer_types")) {
    for (const json& type : j.at("layer_types")) {
      if (type != "full_attention") {
        fail("{}: layers of the type {} are not supported", where, type.dump());
      }
    }
  }
  const bool of_qwen = family == "qwen2" || family == "qwen3";
  if (family != "mistral" && !bool_or(j, "use_sliding_window", !of_qwen, where)) return;
  const bool by_default = family == "mistral" && !j.contains("sliding_window");
  if (!by_default && !present(j, "sliding_window")) return;
  const double window = by_default ? 4096.0 : number_or(j, "sliding_window", 0.0, where);
  if (window >= number_or(j, "max_position_embeddings", 0.0, where)) return;
  fail("{}: sliding-window attention (sliding_window = {}{}) is not supported", where, window,
       by_default ? ", Mistral's default; null means none" : "");
}

void refuse_unsupported(const json& j, const std::string& family, const std::string& where) {
  refuse_windows(j, family, where);
  const std::string activation = string_or(j, "hidden_act", "silu", where);
  if (activation != "silu" && activation != "swish") {  // two names of one function
    fail("{}: hidden_act '{}' is not supported (silu is)", where, activation);
  }
  if (bool_or(j, "mlp_bias", false, where)) fail("{}: mlp_bias is not supported", where);
  if (!bool_or(j, "is_causal", true, where)) {
    fail("{}: attention to later tokens (is_causal = false) is not supported", where);
  }
  if (present(j, "quantization_config") || present(j, "compression_config")) {
    fail("{}: the checkpoint is already quantized; give the float checkpoint instead", where);
  }
}

// Above those of every published model; products of two still fit an int where one is made. The
// sum of squares in base/law.h sets that of hidden_size.
struct Bound {
  const char* key;
  int ModelConfig::*size;
  int most;
};
constexpr Bound kBounds[] = {{"vocab_size", &ModelConfig::vocab_size, 1 << 24},
                             {"hidden_size", &ModelConfig::hidden_size, 1 << 14},
                             {"intermediate_size", &ModelConfig::intermediate_size, 1 << 20},
                             {"num_hidden_layers", &ModelConfig::num_layers, 1 << 10},
                             {"num_attention_heads", &ModelConfig::num_heads, 1 << 10},
                             {"num_key_value_heads", &ModelConfig::num_kv_heads, 1 << 10},
                             {"head_dim", &ModelConfig::head_dim, 1 << 12},
                             {"max_position_embeddings", &ModelConfig::max_positions, 1 << 26}};

void check_sizes(const ModelConfig& c, const std::string& where) {
  for (const Bound& bound : kBounds) {
    const int size = c.*bound.size;
    if (size >= 1 && size <= bound.most) continue;
    fail("{}: {} ({}) must be from 1 to {}", where, bound.key, size, bound.most);
  }
  if (c.num_heads % c.num_kv_heads != 0) {
    fail("{}: num_attention_heads ({}) is not a multiple of num_key_value_heads ({})", where,
         c.num_heads, c.num_kv_heads);
  }
  if (c.head_dim % 2 != 0) fail("{}: head_dim ({}) must be even", where, c.head_dim);
  if (c.hidden_size % 2 != 0 || c.intermediate_size % 2 != 0) {
    fail("{}: hidden_size ({}) and intermediate_size ({}) must be even", where, c.hidden_size,
         c.intermediate_size);
  }
  if (!(c.rms_norm_eps > 0.0)) fail("{}: rms_norm_eps must be positive", where);
}

// What build_graph relies on where layers differ: a size for each, even since 4-bit weights come in
// pairs.
void check_mlp_sizes(const ModelConfig& c) {
  const auto& sizes = c.intermediate_sizes;
  const auto bad = [](int size) { return size <= 0 || size > 1 << 20 || size % 2 != 0; };
  if (sizes.empty() || (sizes.size() == static_cast<size_t>(c.num_layers) &&
                        std::none_of(sizes.begin(), sizes.end(), bad))) {
    return;
  }
  fail("the artifact's model configuration is damaged (intermediate_sizes); quantize again");
}

}  // namespace

ModelConfig config_from_huggingface(const json& j, const std::string& where) {
  if (!j.is_object()) fail("{}: a JSON object is expected", where);
  ModelConfig c;
  const std::string family = family_of(j, where);
  c.architecture = family == "mistral" ? "llama" : family;
  refuse_unsupported(j, family, where);
  c.vocab_size = require_int(j, "vocab_size", where);
  c.hidden_size = require_int(j, "hidden_size", where);
  c.intermediate_size = require_int(j, "intermediate_size", where);
  c.num_layers = require_int(j, "num_hidden_layers", where);
  c.num_heads = require_int(j, "num_attention_heads", where);
  c.num_kv_heads = present(j, "num_key_value_heads") ? require_int(j, "num_key_value_heads", where)
                                                     : c.num_heads;
  if (!present(j, "head_dim") && c.hidden_size % c.num_heads != 0) {
    fail(
        "{}: hidden_size ({}) is not a multiple of num_attention_heads ({}) and head_dim is "
        "missing",
        where, c.hidden_size, c.num_heads);
  }
  c.head_dim =
      present(j, "head_dim") ? require_int(j, "head_dim", where) : c.hidden_size / c.num_heads;
  c.rms_norm_eps = number_or(j, "rms_norm_eps", 1e-6, where);
  c.max_positions = require_int(j, "max_position_embeddings", where);
  c.tied_embeddings = bool_or(j, "tie_word_embeddings", false, where);
  // Mistral and Qwen2 do not know the key.
  const bool attention_bias =
      (family == "llama" || family == "qwen3") && bool_or(j, "attention_bias", false, where);
  c.qkv_bias = family == "qwen2" || attention_bias;
  c.o_bias = attention_bias;
  c.qk_norm = c.architecture == "qwen3";
  read_rope(j, where, c);
  check_sizes(c, where);
  return c;
}

ModelConfig load_config(const std::filesystem::path& config_json) {
  return config_from_huggingface(read_json(config_json), config_json.string());
}

json to_json(const ModelConfig& c) {
  json j = {{"architecture", c.architecture},
            {"vocab_size", c.vocab_size},
            {"hidden_size", c.hidden_size},
            {"intermediate_size", c.intermediate_size},
            {"num_layers", c.num_layers},
            {"num_heads", c.num_heads},
            {"num_kv_heads", c.num_kv_heads},
            {"head_dim", c.head_dim},
            {"rms_norm_eps", c.rms_norm_eps},
            {"rope_theta", c.rope_theta},
            {"rope_scaling",
             {{"factor", c.rope_scaling.factor},
              {"low_freq_factor", c.rope_scaling.low_freq_factor},
              {"high_freq_factor", c.rope_scaling.high_freq_factor},
              {"original_max_position", c.rope_scaling.original_max_position}}},
            {"max_positions", c.max_positions},
            {"tied_embeddings", c.tied_embeddings},
            {"qkv_bias", c.qkv_bias},
            {"o_bias", c.o_bias},
            {"qk_norm", c.qk_norm}};
  if (!c.intermediate_sizes.empty()) j["intermediate_sizes"] = c.intermediate_sizes;
  return j;
}

ModelConfig config_from_json(const json& j) {
  ModelConfig c;
  try {
    j.at("architecture").get_to(c.architecture);
    j.at("vocab_size").get_to(c.vocab_size);
    j.at("hidden_size").get_to(c.hidden_size);
    j.at("intermediate_size").get_to(c.intermediate_size);
    c.intermediate_sizes = j.value("intermediate_sizes", std::vector<int>{});
    j.at("num_layers").get_to(c.num_layers);
    j.at("num_heads").get_to(c.num_heads);
    j.at("num_kv_heads").get_to(c.num_kv_heads);
    j.at("head_dim").get_to(c.head_dim);
    j.at("rms_norm_eps").get_to(c.rms_norm_eps);
    j.at("rope_theta").get_to(c.rope_theta);
    const json& rope = j.at("rope_scaling");
    rope.at("factor").get_to(c.rope_scaling.factor);
    rope.at("low_freq_factor").get_to(c.rope_scaling.low_freq_factor);
    rope.at("high_freq_factor").get_to(c.rope_scaling.high_freq_factor);
    rope.at("original_max_position").get_to(c.rope_scaling.original_max_position);
    j.at("max_positions").get_to(c.max_positions);
    j.at("tied_embeddings").get_to(c.tied_embeddings);
    j.at("qkv_bias").get_to(c.qkv_bias);
    j.at("o_bias").get_to(c.o_bias);
    j.at("qk_norm").get_to(c.qk_norm);
  } catch (const json::exception& e) {
    fail("the artifact's model configuration is damaged ({}); quantize again", e.what());
  }
  check_sizes(c, "the artifact's model configuration");
  check_mlp_sizes(c);
  return c;
}

std::vector<double> rope_inverse_frequencies(const ModelConfig& config) {
  const RopeScaling& s = config.rope_scaling;
  std::vector<double> frequencies;
  for (int i = 0; i < config.head_dim / 2; ++i) {
    double f = std::pow(config.rope_theta, -2.0 * i / config.head_dim);
    if (s.factor != 1.0) {
      // Llama 3: long wavelengths are stretched by `factor`, short ones kept, a linear blend
      // between.
      const double turns = s.original_max_position * f / (2.0 * std::numbers::pi);
      const double keep = std::clamp(
          (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor), 0.0, 1.0);
      f = keep * f + (1.0 - keep) * f / s.factor;
    }
    frequencies.push_back(f);
  }
  return frequencies;
}

}  // namespace qnpu
