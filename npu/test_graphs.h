// For tests: graphs of a tiny decoder, and the files of targets/.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "model/graph.h"
#include "npu/target.h"

namespace qnpu {

// D = 64, F = 160, 4 heads of 16 that share 2 of keys and values, 2 layers, 320 tokens.
inline Graph tiny_graph(const std::string& recipe) {
  ModelConfig c;
  c.architecture = "llama";
  c.vocab_size = 320;
  c.hidden_size = 64;
  c.intermediate_size = 160;
  c.num_layers = 2;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.head_dim = 16;
  c.max_positions = 512;
  return build_graph(c, load_recipe(std::string(QNPU_SOURCE_DIR "/recipes/") + recipe + ".json"));
}

inline Target target_named(const std::string& name) {
  return load_target(std::string(QNPU_SOURCE_DIR "/targets/") + name + ".json");
}

inline Site& site_named(Graph& graph, const std::string& name) {
  return graph.sites.at(static_cast<size_t>(graph.find_site(name)));
}

}  // namespace qnpu
