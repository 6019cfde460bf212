// Which tensors the nodes of a graph need: the table of docs/artifact.md as code.
#include <map>

#include "base/status.h"
#include "model/artifact.h"
#include "model/check_graph.h"

namespace qnpu {
namespace {

void linear_tensors(const Graph& graph, const Node& node, std::vector<TensorSpec>& out) {
  const Site& weight = graph.site(node.weight);
  const int64_t n = weight.rows;
  const int64_t k = weight.cols;
  if (weight.qparams.dtype == DType::kS4) {
    out.push_back({weight.name, "U8", {n, k / 2}});
  } else {
    out.push_back({weight.name, "I8", {n, k}});
  }
  out.push_back({weight.name + ".scale", "F32", {n}});
  for (const char* part : {".row_sum", ".multiplier", ".shift"}) {
    out.push_back({node.name + part, "I32", {n}});
  }
  if (node.bias) out.push_back({node.name + ".bias", "I32", {n}});
}

void node_tensors(const Graph& graph, const Node& node, int64_t positions,
                  std::vector<TensorSpec>& out) {
  switch (node.op) {
    case Op::kEmbedding: {
      const Site& table = graph.site(node.weight);
      out.push_back({table.name, "I16", {table.rows, table.cols}});
      break;
    }
    case Op::kRmsNorm:
      out.push_back({graph.site(node.weight).name, "I16", {graph.site(node.weight).cols}});
      break;
    case Op::kRopeMul:
      out.push_back({graph.site(node.weight).name, "I16", {positions, graph.config.head_dim / 2}});
      break;
    case Op::kLinear:
      linear_tensors(graph, node, out);
      break;
    case Op::kSilu:
      out.push_back({node.name + ".table",
                     "I16",
                     {int64_t{1} << bitwidth(graph.site(node.in[0]).qparams.dtype)}});
      break;
    case Op::kSoftmax:
      out.push_back({node.name + ".exp_high", "U32", {256}});
      out.push_back({node.name + ".exp_low", "U32", {256}});
      break;
    case Op::kAppend:
      if (!graph.prefix_tokens.empty()) {
        const Site& cache = graph.site(node.out);
        out.push_back({cache.name + ".prefix", "I8", {graph.prefix_length(), cache.cols}});
      }
      break;
    default:
      break;
  }
}

}  // namespace

std::vector<TensorSpec> required_tensors(const Graph& graph, int positions) {
  if (positions < 1) fail("an artifact for {} positions: it needs at least one", positions);
  std::vector<TensorSpec> all;
  for (const Node& node : graph.nodes) {
    check_arity(graph, node);
    node_tensors(graph, node, positions, all);
  }
  std::vector<TensorSpec> unique;
  std::map<std::string, TensorSpec> seen;
  for (const TensorSpec& spec : all) {
    const auto [first, is_new] = seen.emplace(spec.name, spec);
    if (is_new) {
      unique.push_back(spec);
    } else if (first->second.dtype != spec.dtype || first->second.shape != spec.shape) {
      fail("the artifact's graph is damaged: it needs the tensor {} in two shapes; quantize again",
           spec.name);
    }
  }
  return unique;
}

}  // namespace qnpu
