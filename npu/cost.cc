#include "npu/cost.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "npu/placement.h"

namespace qnpu {
namespace {

class Counter {
 public:
  Counter(const Graph& graph, int rows, int context, bool all_logits)
      : g_(graph), rows_(rows), context_(context), all_logits_(all_logits) {}

  NodeWork work(const Node& node) const {
    NodeWork w;
    w.op = node.op;
    w.head = node.layer < 0 && node.op != Op::kEmbedding;
    const Site& out = g_.site(node.out);
    const double rows = w.head && !all_logits_ ? 1 : rows_;
    w.wide = bitwidth(out.qparams.dtype) > 8;
    w.operand_bytes = bytes(out, rows);
    for (const int site : node.in) w.operand_bytes += bytes(g_.site(site), rows);
    switch (node.op) {
      case Op::kLinear: {
        const Site& weight = g_.site(node.weight);
        w.products = rows * weight.rows * weight.cols;
        w.memory_bytes = static_cast<double>(weight_bytes(weight));
        w.blocks = weight.spec.block_size != 0;
        break;
      }
      case Op::kScores:
      case Op::kContext:  // each of H heads: N x hd x C
        w.products = rows * context_ * g_.config.num_heads * g_.config.head_dim;
        break;
      case Op::kAppend:  // the past is read, the new rows are written
        w.memory_bytes = bytes(out, 1);
        break;
      case Op::kEmbedding:
        w.memory_bytes = bytes(out, rows);
        break;
      default:
        break;
    }
    return w;
  }

 private:
  double bytes(const Site& site, double rows) const {
    const double each = activation_bytes(site.qparams.dtype);
    switch (site.role) {
      case Role::kScores:
        return each * rows * context_ * g_.config.num_heads;
      case Role::kKCache:
      case Role::kVCache:
        return each * context_ * site.cols;
      default:
        return each * rows * site.cols;
    }
  }

  const Graph& g_;
  double rows_, context_;
  bool all_logits_;
};

void check(const Graph& graph, const Target& target, int rows, int context) {
  if (rows < 1) fail("{} rows: a graph takes at least 1 token", rows);
  if (context < 1) fail("a context of {}: a graph has at least 1 position", context);
  if (rows + graph.prefix_length() > context) {
    fail("{} rows{} do not fit into a context of {}", rows,
         graph.prefix_length() > 0 ? fmt::format(" and a prefix of {}", graph.prefix_length()) : "",
         context);
  }
  if (target.has_speed()) return;
  fail(
      "{}: no public figures are known of {} ('tcm_mb', 'memory_gb_per_s' and 'npu_speed' are not "
      "all there), so nothing can be estimated for it",
      target.file, target.name);
}

}  // namespace

const char* kind_of(const NodeWork& work) {
  if (work.head) return "head";
  switch (work.op) {
    case Op::kLinear:
      return "linear";
    case Op::kScores:
    case Op::kMask:
    case Op::kSoftmax:
    case Op::kContext:
      return "attention";
    case Op::kAppend:
      return "cache";
    default:
      return "elementwise";
  }
}

std::vector<NodeWork> node_work(const Graph& graph, int rows, int context, bool all_logits) {
  const Counter counter(graph, rows, context, all_logits);
  std::vector<NodeWork> result;
  for (const Node& node : graph.nodes) result.push_back(counter.work(node));
  return result;
}

double node_seconds(const NodeWork& w, const Target& target, const CostParameters& p) {
  const double rate = 1e12 * p.tera_products * (w.wide ? 1 : p.speedup_8) * target.npu_speed;
  const double products = w.products * (w.blocks ? p.block_slowdown : 1) / rate;
  const double memory = w.memory_bytes / (1e9 * p.memory_share * target.memory_gb_per_s);
  return std::max(products, memory) + 1e-6 * p.overhead_us;
}

CostEstimate estimate(const Graph& graph, const Target& target, const CostParameters& parameters,
                      int rows, int context, bool all_logits) {
  check(graph, target, rows, context);
  CostEstimate e;
  e.target = target.name;
  e.rows = rows;
  e.context = context;
  double moved = 0, operands = 0;
  for (const NodeWork& w : node_work(graph, rows, context, all_logits)) {
    const double seconds = node_seconds(w, target, parameters);
    e.seconds += seconds;
    e.shares[kind_of(w)] += seconds;
    e.products += w.products;
    moved += w.memory_bytes;
    operands = std::max(operands, w.operand_bytes);
    e.nodes_over_tcm += w.operand_bytes > target.tcm_mb * 0x1p20;
  }
  for (auto& [kind, share] : e.shares) share /= e.seconds;
  e.joules = parameters.watts * e.seconds;
  e.moved_bytes = static_cast<int64_t>(moved);
  e.operand_bytes = static_cast<int64_t>(operands);
  const GraphMemory memory = graph_memory(graph, context);
  e.weight_bytes = memory.weight_bytes;
  e.cache_bytes = memory.cache_bytes;
  return e;
}

nlohmann::json to_json(const CostEstimate& e) {
  return {{"target", e.target},
          {"rows", e.rows},
          {"context", e.context},
          {"seconds", e.seconds},
          {"tokens_per_second", e.tokens_per_second()},
          {"joules", e.joules},
          {"products", e.products},
          {"moved_bytes", e.moved_bytes},
          {"memory_bytes", e.weight_bytes + e.cache_bytes},
          {"weight_bytes", e.weight_bytes},
          {"cache_bytes", e.cache_bytes},
          {"largest_operands_bytes", e.operand_bytes},
          {"nodes_over_tcm", e.nodes_over_tcm},
          {"shares", e.shares}};
}

}  // namespace qnpu
