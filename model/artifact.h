// The artifact: a folder of standard files that meets quantizer and runtime (docs/artifact.md).
//
//   graph.json         {"format": "quantnpu", "version": 2, "graph": {config, sites, nodes,
//                       prefix}, "recipe", "rotated", "positions", "tensors": {name: xxh3 of the
//                       bytes}, "checksum": xxh3 of all the rest, ...}
//   model.safetensors  packed integers, every tensor at a multiple of 64 bytes
//   tokenizer.json, tokenizer_config.json, generation_config.json, ...   copied from the checkpoint
//   report.json        what was measured while quantizing
//
// Tensors, by node or site name X: linear weight "X.weight" (I8 [N, K], or U8 [N, K/2] with the low
// nibble first), "X.weight.scale" F32 [N], "X.row_sum", "X.multiplier", "X.shift" I32 [N],
// "X.bias" I32 [N] where there is one (already divided by 256 if the linear is 16-bit);
// tables "embed_tokens.weight" I16 [V, D], norm weights I16, "rope.cos", "rope.sin" I16 [P, hd /
// 2]; SiLU nodes "X.table" I16 [256 or 65536]; softmax nodes "X.exp_high", "X.exp_low" U32 [256];
// caches, if the graph has P prefix tokens, "X.prefix" I8 [P, cols], a row for each position (of
// keys and values alike).
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "model/graph.h"

namespace qnpu {

constexpr int kArtifactVersion = 2;

struct Artifact {
  std::filesystem::path folder;
  Graph graph;
  nlohmann::json manifest;  // the whole of graph.json, less the graph
  TensorFile tensors;
  int positions = 0;  // rows of the cos and sin tables: the longest context
};

// The tensors that a graph's nodes need, in node order; tables that several nodes share come once.
std::vector<TensorSpec> required_tensors(const Graph& graph, int positions);

// Bytes of the model.safetensors that freezing such a graph gives. It needs widths only, no scales.
int64_t tensor_file_bytes(const Graph& graph, int positions);

// Why the artifact can only be simulated in float: what its recipe does at run time, as the end of
// a sentence about it ("rotates ..."). Empty for all that the integer runtime can run.
std::string simulated_only(const Artifact& artifact);
std::string simulated_only(const Recipe& recipe);

// Error about an artifact that can only be simulated: its graph lacks what happens at run time.
void check_deployable(const Artifact& artifact);

bool is_artifact(const std::filesystem::path& folder);  // has a graph.json

// Maps and checks everything: version, checksums of all tensors, presence, type and shape of what
// each node needs. Error names the file and tells what to do; nothing is written.
std::shared_ptr<const Artifact> load_artifact(const std::filesystem::path& folder);

// Writes graph.json and model.safetensors into `folder` (a staging folder: see StagedFolder), with
// the checksums. `manifest` may hold further keys (recipe, rotated, ...). Error if a tensor that a
// node needs is missing or has another type or shape: what is written can be loaded.
void write_artifact(const std::filesystem::path& folder, const Graph& graph,
                    const std::vector<TensorToWrite>& tensors, int positions,
                    nlohmann::json manifest);

}  // namespace qnpu
