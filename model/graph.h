// The spine of the program: the table of sites and the flat list of nodes that every reader walks
// (simulator, runtime, planner, exporters). `build_graph` is the only place that knows how a
// decoder is put together.
//
// A *site* is every place where a number is quantized: activations, weights, caches, constant
// tables. Its name is the Hugging Face module's name without "model.", for example
// "layers.3.mlp.down_proj.in" or "layers.3.mlp.down_proj.weight".
//
// The NPU's rule "one width per node" holds throughout: a node's activations are all 8-bit or all
// 16-bit, and widths change only in a Convert node, whose two sites are tied (scale8 =
// 256*scale16). A 4-bit input (scale4 = 4096*scale16) makes a linear an 8-bit one that meets only
// the numbers -8 .. 7.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/law.h"
#include "base/qparams.h"
#include "model/config.h"
#include "model/recipe.h"

namespace qnpu {

enum class Role {
  kActivation,  // [T, cols]
  kScores,      // [H, T, C]: one value per head, new token and visible position
  kKCache,      // [C, KV * head_dim], C = positions of the context
  kVCache,      // [KV * head_dim, C]: transposed, so that positions are contiguous
  kWeight,      // [cols_out, cols] of a linear, per output channel
  kTable,       // constants: embedding [V, D], norm weights [cols], cos and sin [P, head_dim / 2]
};

// Where the numbers of a site come from.
enum class RangeSource {
  kObserved,  // an observer chooses them
  kTied,   // those of site `tied_to`: the same scale, or finer or coarser by 2^(width difference)
  kFixed,  // fixed by the operation: probabilities, cos and sin
  kMask,   // scores' range, widened downwards by 20 (docs/numerics.md)
};

struct Site {
  std::string name;
  Role role = Role::kActivation;
  int layer = -1;        // -1: outside the decoder layers
  int rows = 0;          // kWeight, kTable: number of rows; else 0
  int cols = 0;          // length of a row; 0 for kScores
  bool rotated = false;  // in a rotated basis if the recipe rotates
  RangeSource source = RangeSource::kObserved;
  int tied_to = -1;
  QuantSpec spec;
  int rule = -1;    // which rule of the recipe decided the spec; -1: the default
  QParams qparams;  // filled by calibration; dtype set by build_graph
};

enum class Op {
  kEmbedding,   // out[t] = table[token[t]]
  kRmsNorm,     // per head_count-th part of a row; weight = gamma
  kConvert,     // s8 <-> s16, s16 -> s4, tied scales
  kLinear,      // in [T, K] x weight [N, K] (+ bias) -> [T, N]
  kRotateHalf,  // per head: [a, b] -> [-b, a]
  kRopeMul,     // x * table[position], table repeated for both halves of each head
  kAdd,
  kMul,
  kSilu,
  kAppend,   // new rows -> cache, at positions [position, position + T)
  kScores,   // in = {q, k_cache}: per head, q . k for every visible position; grouped heads
  kMask,     // adds 0 to visible positions; all others are not computed (probability 0)
  kSoftmax,  // over the visible positions
  kContext,  // in = {probabilities, v_cache}: per head, weighted sum of values
};

struct Node {
  Op op = Op::kAdd;
  std::string name;  // "layers.3.mlp.down_proj"; unique
  int layer = -1;
  std::vector<int> in;  // site indices of the inputs
  int out = -1;         // site index of the output
  int weight = -1;      // site index of the weight or table
  bool bias = false;    // kLinear: tensor "<name>.bias"
  int heads = 1;        // kRmsNorm, kRotateHalf, kRopeMul: parts of a row; kScores...: query heads
  Law law;              // filled by freeze (per-channel requantization lives in tensors)
};

struct Graph {
  ModelConfig config;
  std::vector<Site> sites;
  std::vector<Node> nodes;  // in order of execution; the last one's output is the logits
  // Tokens whose keys and values are constants of the artifact: the caches begin with their rows
  // (tensor "<cache site>.prefix"), and a user's first token stands at position P. Empty: none.
  std::vector<int> prefix_tokens;

  const Site& site(int index) const { return sites[static_cast<size_t>(index)]; }
  int find_site(const std::string& name) const;  // -1 if there is none
  int prefix_length() const { return static_cast<int>(prefix_tokens.size()); }  // P
};

// Builds sites and nodes for a model under a recipe. Throws Error if a rule matches no site or asks
// for a width that the operation or the NPU's width rules cannot take (the sentence names both).
Graph build_graph(const ModelConfig& config, const Recipe& recipe);

// The site at the end of a chain of ties, and the ratio scale(site) / scale(root).
struct TieRoot {
  int site;
  double ratio;
};
TieRoot tie_root(const Graph& graph, int site);

// "{op, name, in, out, ...}" lists for graph.json, and back (checked: indices, widths, order).
nlohmann::json graph_to_json(const Graph& graph);
Graph graph_from_json(const nlohmann::json& json);

const char* op_name(Op op);
const char* role_name(Role role);

}  // namespace qnpu
