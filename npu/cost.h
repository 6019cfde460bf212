// What a graph would cost on a phone's NPU: an estimate, never a measurement.
//
// Each node is a roofline of its own: it takes as long as its products at the rate of its width, or
// as the bytes that it fetches from main memory, whichever is longer, and a fixed time. N rows are
// new, C positions are in the cache; a static graph computes all C of them, visible or not.
//
//   time(node) = max(products / rate(8 or 16 bits), bytes / (share * bandwidth)) + overhead
//
// Elementwise operations have the fixed time only: the published figures do not determine a rate of
// the vector unit (docs/cost.md).
//
// The rates are fitted to published figures (npu/calibration.h), as those of the SM8750; another
// target's are `npu_speed` times as high, and its bandwidth is its own.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "model/graph.h"
#include "npu/target.h"

namespace qnpu {

struct CostParameters {
  double tera_products = 1;   // multiply-accumulates per second, in 10^12, of 16-bit activations
  double speedup_8 = 1;       // of 8-bit ones over them, at least 1
  double block_slowdown = 1;  // of products with weights in blocks, at least 1
  double memory_share = 1;    // of the peak bandwidth that is reached, at most 1
  double overhead_us = 1;     // of each node
  double watts = 1;           // while it computes
};

// The work of one node in one call of the graph.
struct NodeWork {
  Op op = Op::kAdd;
  bool head = false;         // lm_head and what belongs to it
  bool wide = false;         // 16-bit activations
  bool blocks = false;       // weights in blocks
  double products = 0;       // multiply-accumulates
  double memory_bytes = 0;   // weights, rows of tables, caches
  double operand_bytes = 0;  // inputs and output: what should be in the tightly coupled memory
};

// With `all_logits` the head computes every row, else the last one.
std::vector<NodeWork> node_work(const Graph& graph, int rows, int context, bool all_logits);

double node_seconds(const NodeWork& work, const Target& target, const CostParameters& parameters);

struct CostEstimate {
  std::string target;
  int rows = 0;
  int context = 0;
  double seconds = 0;  // of one call
  double joules = 0;
  double tokens_per_second() const { return rows / seconds; }
  double products = 0;
  int64_t moved_bytes = 0;   // from and to main memory, in one call
  int64_t weight_bytes = 0;  // what is kept in main memory
  int64_t cache_bytes = 0;
  int64_t operand_bytes = 0;  // of the node that has most
  int nodes_over_tcm = 0;     // whose operands are more than the tightly coupled memory holds
  std::map<std::string, double> shares;  // of the time: linear, head, attention, cache, elementwise
};

// Error: rows or context that no graph has, or a target without figures.
CostEstimate estimate(const Graph& graph, const Target& target, const CostParameters& parameters,
                      int rows, int context, bool all_logits = false);

nlohmann::json to_json(const CostEstimate& estimate);

// "linear", "head", "attention", "cache" or "elementwise".
const char* kind_of(const NodeWork& work);

}  // namespace qnpu
