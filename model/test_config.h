// For tests: the configuration of a tiny decoder.
#pragma once

#include <string>

#include "model/config.h"

namespace qnpu {

// D = 64, F = 160, 4 heads of 16 that share 2 of keys and values, 2 layers, 320 tokens.
inline ModelConfig tiny_config(const std::string& architecture) {
  ModelConfig c;
  c.architecture = architecture;
  c.vocab_size = 320;
  c.hidden_size = 64;
  c.intermediate_size = 160;
  c.num_layers = 2;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.head_dim = 16;
  c.max_positions = 512;
  c.qkv_bias = architecture == "qwen2";
  c.qk_norm = architecture == "qwen3";
  return c;
}

}  // namespace qnpu
