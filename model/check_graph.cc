#include "model/check_graph.h"

#include <algorithm>
#include <cmath>

#include "base/status.h"

namespace qnpu {
namespace {

constexpr char kAdvice[] = "quantize the model again, or copy the artifact again";
constexpr int kMostNormColumns = 16384;  // the sum of squares in base/law.h

// ---- Sites ----

bool dtype_fits(const Site& site) {
  const DType type = site.qparams.dtype;
  switch (site.role) {
    case Role::kActivation:
      return type == DType::kS4 || type == DType::kS8 || type == DType::kS16;
    case Role::kScores:
      return type == DType::kS16 || type == DType::kU16;
    case Role::kKCache:
    case Role::kVCache:
      return type == DType::kS8;
    case Role::kWeight:
      return type == DType::kS8 || (type == DType::kS4 && site.cols % 2 == 0);
    case Role::kTable:
      return type == DType::kS16;
  }
  return false;
}

bool size_fits(const Site& site, const ModelConfig& config) {
  const int blocks = site.spec.block_size;
  const bool cols = site.role == Role::kScores ? site.cols == 0 : site.cols > 0;
  const bool rows = site.rows >= 0 && (site.role != Role::kWeight || site.rows > 0);
  return cols && rows && blocks >= 0 && (blocks == 0 || site.cols % blocks == 0) &&
         site.layer >= -1 && site.layer < config.num_layers;
}

bool scale_fits(const Site& site) {
  const QParams& q = site.qparams;
  if (site.role == Role::kWeight) return true;
  if (q.scale.size() != 1 || q.zero_point.size() != 1) return false;
  const IntegerRange range = integer_range(q.dtype);
  return std::isfinite(q.scale[0]) && q.scale[0] > 0.0f && q.zero_point[0] >= range.qmin &&
         q.zero_point[0] <= range.qmax;
}

// A chain of ties is shorter than the list of sites unless it goes in a circle.
bool tie_ends(const Graph& graph, const Site& site) {
  const Site* at = &site;
  for (size_t steps = 0; at->source == RangeSource::kTied; ++steps) {
    if (at->tied_to < 0 || steps > graph.sites.size()) return false;
    at = &graph.site(at->tied_to);
  }
  return true;
}

void check_site(const Graph& graph, const Site& site, const std::string& file) {
  const auto need = [&](bool good, const char* what) {
    if (!good) fail("{}: site '{}' has {}: {}", file, site.name, what, kAdvice);
  };
  need(size_fits(site, graph.config), "a size or layer that cannot be");
  need(dtype_fits(site), "a number type that its role cannot have");
  need(tie_ends(graph, site), "a scale tied to no site or to itself");
  need(scale_fits(site), "no scale, or one that is not positive, or a zero point out of range");
}

// ---- Nodes ----

bool has_role(const Graph& graph, int site, Role role) { return graph.site(site).role == role; }

// What an operation reads and writes, weights aside.
bool roles_fit(const Graph& graph, const Node& node) {
  const auto in = [&](size_t i, Role role) { return has_role(graph, node.in[i], role); };
  const auto out = [&](Role role) { return has_role(graph, node.out, role); };
  switch (node.op) {
    case Op::kAppend:
      return in(0, Role::kActivation) && (out(Role::kKCache) || out(Role::kVCache));
    case Op::kScores:
      return in(0, Role::kActivation) && in(1, Role::kKCache) && out(Role::kScores);
    case Op::kMask:
    case Op::kSoftmax:
      return in(0, Role::kScores) && out(Role::kScores);
    case Op::kContext:
      return in(0, Role::kScores) && in(1, Role::kVCache) && out(Role::kActivation);
    default:
      return out(Role::kActivation) && std::all_of(node.in.begin(), node.in.end(), [&](int site) {
               return has_role(graph, site, Role::kActivation);
             });
  }
}

// Rows of inputs and output; for all but the linears these are equal, heads apart.
bool cols_fit(const Graph& graph, const Node& node) {
  const ModelConfig& c = graph.config;
  const int queries = c.num_heads * c.head_dim;
  const int keys = c.num_kv_heads * c.head_dim;
  const int out = graph.site(node.out).cols;
  const auto in = [&](size_t i) { return graph.site(node.in[i]).cols; };
  switch (node.op) {
    case Op::kLinear:
    case Op::kEmbedding:
      return true;  // constant_fits
    case Op::kScores:
      return in(0) == queries && in(1) == keys;
    case Op::kMask:
    case Op::kSoftmax:
      return true;
    case Op::kContext:
      return out == queries && in(1) == keys;
    case Op::kAppend:
      return in(0) == keys && out == keys;
    default:
      return std::all_of(node.in.begin(), node.in.end(),
                         [&](int site) { return graph.site(site).cols == out; });
  }
}

bool heads_fit(const Graph& graph, const Node& node) {
  const int out = graph.site(node.out).cols;
  switch (node.op) {
    case Op::kScores:
    case Op::kMask:
    case Op::kSoftmax:
    case Op::kContext:
      return node.heads == graph.config.num_heads;
    case Op::kRotateHalf:
    case Op::kRopeMul:
      return out % node.heads == 0 && out / node.heads == graph.config.head_dim;
    case Op::kRmsNorm:
      return out % node.heads == 0 && out / node.heads <= kMostNormColumns;
    default:
      return true;
  }
}

// The weight or table against what it works on.
bool constant_fits(const Graph& graph, const Node& node) {
  if (node.weight < 0) return true;
  const Site& constant = graph.site(node.weight);
  const int out = graph.site(node.out).cols;
  const bool table = constant.role == Role::kTable;
  switch (node.op) {
    case Op::kLinear:
      return constant.role == Role::kWeight && constant.cols == graph.site(node.in[0]).cols &&
             constant.rows == out;
    case Op::kEmbedding:
      return table && constant.rows == graph.config.vocab_size && constant.cols == out;
    case Op::kRmsNorm:
      return table && constant.cols == out / node.heads;
    default:
      return table && constant.cols == graph.config.head_dim / 2;  // rope_mul
  }
}

// The four operations of attention are computed as one: each must read what the one before wrote.
bool follows(const Graph& graph, const std::vector<int>& writer, const Node& node) {
  const auto reads = [&](Op op) {
    return graph.nodes[static_cast<size_t>(writer[static_cast<size_t>(node.in[0])])].op == op;
  };
  if (node.op == Op::kMask) return reads(Op::kScores);
  if (node.op == Op::kSoftmax) return reads(Op::kMask);
  return node.op != Op::kContext || reads(Op::kSoftmax);
}

void check_nodes(const Graph& graph, const std::string& file) {
  std::vector<int> writer(graph.sites.size(), -1);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    const auto need = [&](bool good, const char* what) {
      if (good) return;
      fail("{}: node '{}' ({}) has {}: {}", file, node.name, op_name(node.op), what, kAdvice);
    };
    check_arity(graph, node);
    need(node.layer >= -1 && node.layer < graph.config.num_layers, "a layer that is not there");
    need(roles_fit(graph, node), "an input or output of the wrong kind");
    need(heads_fit(graph, node), "heads that do not fit its sizes");
    need(cols_fit(graph, node), "inputs and outputs whose sizes differ");
    need(constant_fits(graph, node), "a weight or table that does not fit its sizes");
    need(follows(graph, writer, node), "an input that the wrong node wrote");
    int& first = writer[static_cast<size_t>(node.out)];
    need(first < 0, "an output that another node writes too");
    first = static_cast<int>(i);
  }
}

}  // namespace

void check_arity(const Graph& graph, const Node& node) {
  size_t inputs = 1;
  if (node.op == Op::kEmbedding) inputs = 0;
  if (node.op == Op::kAdd || node.op == Op::kMul || node.op == Op::kScores ||
      node.op == Op::kContext) {
    inputs = 2;
  }
  const bool constant = node.op == Op::kEmbedding || node.op == Op::kRmsNorm ||
                        node.op == Op::kLinear || node.op == Op::kRopeMul;
  const bool good = node.in.size() == inputs && (node.weight >= 0) == constant && node.heads >= 1;
  if (good && (!constant || graph.site(node.weight).cols > 0)) return;
  fail("the artifact's graph is damaged at node '{}' ({}): quantize again", node.name,
       op_name(node.op));
}

void check_graph(const Graph& graph, const std::string& file) {
  for (const Site& site : graph.sites) check_site(graph, site, file);
  check_nodes(graph, file);
  const Node& last = graph.nodes.back();
  if (last.op == Op::kLinear && graph.site(last.out).cols == graph.config.vocab_size) return;
  fail("{}: node '{}', the last one, does not give a logit for each of {} tokens: {}", file,
       last.name, graph.config.vocab_size, kAdvice);
}

}  // namespace qnpu
