// For tests: graphs of a tiny decoder, and the files of targets/.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "model/graph.h"
#include "model/test_config.h"
#include "npu/target.h"

namespace qnpu {

inline Graph tiny_graph(const std::string& recipe) {
  return build_graph(tiny_config("llama"),
                     load_recipe(std::string(QNPU_SOURCE_DIR "/recipes/") + recipe + ".json"));
}

inline Target target_named(const std::string& name) {
  return load_target(std::string(QNPU_SOURCE_DIR "/targets/") + name + ".json");
}

inline Site& site_named(Graph& graph, const std::string& name) {
  return graph.sites.at(static_cast<size_t>(graph.find_site(name)));
}

}  // namespace qnpu
