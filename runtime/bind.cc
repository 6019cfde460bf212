#include "runtime/bind.h"

#include <algorithm>

#include "base/status.h"
#include "kernels/matmul/panels.h"

namespace qnpu {
namespace {

int32_t zero_point(const Site& site) {
  return site.qparams.zero_point.empty() ? 0 : site.qparams.zero_point[0];
}

int bits_of(const Site& site) { return bitwidth(site.qparams.dtype); }

// Shifts that the formulas of base/law.h can take.
bool valid(const Requant& law) { return law.mantissa > 0 && law.shift >= -16 && law.shift <= 62; }
bool valid(const AddLaw& law) { return law.shift >= 1 && law.shift <= 62; }
bool valid(const MulLaw& law) { return law.shift >= 1 && law.shift <= 62; }
// A row's factor shifts by 7 less to 23 more, and only to the right: products have 62 bits.
bool valid(const RmsNormLaw& law) {
  return law.shift >= 7 && law.shift <= 126 && law.epsilon >= 0 &&
         law.epsilon <= int64_t{1} << 60 && law.mantissa > 0 && law.mantissa <= int64_t{1} << 31;
}

template <typename L>
L law_of(const Artifact& artifact, const Node& node) {
  const L* law = std::get_if<L>(&node.law);
  if (law == nullptr || !valid(*law)) {
    fail("{}: node {} ({}) has no valid integer law: quantize the model again",
         (artifact.folder / "graph.json").string(), node.name, op_name(node.op));
  }
  return *law;
}

template <typename T>
const T* tensor(const Artifact& artifact, const std::string& name) {
  return artifact.tensors.at(name).as<T>().data();
}

LinearWeights bind_linear(const Artifact& artifact, const Node& node) {
  const Site& weight = artifact.graph.site(node.weight);
  LinearWeights w;
  w.n = weight.rows;
  w.k = weight.cols;
  w.bits = bitwidth(weight.qparams.dtype);
  w.weight = tensor<uint8_t>(artifact, weight.name);
  w.row_sum = tensor<int32_t>(artifact, node.name + ".row_sum");
  if (node.bias) w.bias = tensor<int32_t>(artifact, node.name + ".bias");
  w.mantissa = tensor<int32_t>(artifact, node.name + ".multiplier");
  w.shift = tensor<int32_t>(artifact, node.name + ".shift");
  for (int i = 0; i < w.n; ++i) {
    if (valid(Requant{w.mantissa[i], w.shift[i]})) continue;
    fail("{}: channel {} of {} has an impossible multiplier ({}, shift {}): quantize again",
         artifact.tensors.path(), i, node.name, w.mantissa[i], w.shift[i]);
  }
  return w;
}

// One width per node, and of the kernels that exist. 4 bits only from a Convert to a linear.
void check_widths(const Artifact& artifact, const Node& node) {
  const Graph& graph = artifact.graph;
  const int in = node.in.empty() ? 16 : bits_of(graph.site(node.in[0]));
  const int out = bits_of(graph.site(node.out));
  bool good = true;
  switch (node.op) {
    case Op::kConvert:
      good = in == 16 ? out < 16 : in == 8 && out == 16;
      break;
    case Op::kLinear:
      good = out == std::max(8, in);
      break;
    case Op::kMul:
    case Op::kSilu:
      good = in == out && in >= 8;
      break;
    case Op::kAppend:
      good = in == 8 && out == 8;
      break;
    default:
      good = in == 16 && out == 16;
  }
  if (!good) {
    fail("{}: node {} ({}) mixes widths for which there is no integer kernel: quantize again",
         (artifact.folder / "graph.json").string(), node.name, op_name(node.op));
  }
}

void bind_constants(const Artifact& artifact, const Node& node, BoundNode& bound) {
  const Graph& graph = artifact.graph;
  switch (node.op) {
    case Op::kLinear:
      bound.linear = bind_linear(artifact, node);
      break;
    case Op::kEmbedding:
      bound.table = tensor<int16_t>(artifact, graph.site(node.weight).name);
      break;
    case Op::kRmsNorm:
      bound.table = tensor<int16_t>(artifact, graph.site(node.weight).name);
      bound.norm = law_of<RmsNormLaw>(artifact, node);
      break;
    case Op::kRopeMul:
      bound.table = tensor<int16_t>(artifact, graph.site(node.weight).name);
      bound.mul = law_of<MulLaw>(artifact, node);
      break;
    case Op::kSilu:
      bound.table = tensor<int16_t>(artifact, node.name + ".table");
      break;
    case Op::kSoftmax:
      bound.exp_high = tensor<uint32_t>(artifact, node.name + ".exp_high");
      bound.exp_low = tensor<uint32_t>(artifact, node.name + ".exp_low");
      break;
    case Op::kMul:
      bound.mul = law_of<MulLaw>(artifact, node);
      bound.zero_point = zero_point(graph.site(node.in[0]));
      break;
    case Op::kAdd:
      bound.add = law_of<AddLaw>(artifact, node);
      break;
    case Op::kMask:
      bound.add = law_of<AddLaw>(artifact, node);
      bound.zero_point = zero_point(graph.site(node.out));
      break;
    case Op::kScores:
    case Op::kContext:
      bound.requant = law_of<Requant>(artifact, node);
      break;
    case Op::kConvert:
    case Op::kRotateHalf:
    case Op::kAppend:
      break;
  }
}

BoundNode bind_node(const Artifact& artifact, const Node& node, const Plan& plan,
                    std::byte* arena) {
  const Graph& graph = artifact.graph;
  check_widths(artifact, node);
  const auto buffer = [&](int site) -> void* {
    if (graph.site(site).role == Role::kScores) return nullptr;  // bind_trace
    return arena + plan.sites[static_cast<size_t>(site)].offset;
  };
  BoundNode bound;
  bound.op = node.op;
  bound.heads = node.heads;
  bound.wide = bits_of(graph.site(node.out)) == 16;
  bound.four = bits_of(graph.site(node.out)) == 4;
  bound.keys = graph.site(node.out).role == Role::kKCache;
  bound.out = buffer(node.out);
  bound.out_cols = graph.site(node.out).cols;
  bound.cols = bound.out_cols;
  if (!node.in.empty()) {
    bound.in0 = buffer(node.in[0]);
    bound.cols = graph.site(node.in[0]).cols;
  }
  if (node.in.size() > 1) bound.in1 = buffer(node.in[1]);
  bind_constants(artifact, node, bound);
  return bound;
}

// What the kContext node needs to do the work of all four.
void bind_attention(const Graph& graph, size_t context, BoundGraph& bound) {
  const AttentionNodes nodes = attention_nodes(graph, context);
  const BoundNode& scores = bound.nodes[nodes.scores];
  const BoundNode& mask = bound.nodes[nodes.mask];
  const BoundNode& softmax = bound.nodes[nodes.softmax];
  BoundNode& node = bound.nodes[context];
  node.q = scores.in0;
  node.keys_in = scores.in1;
  node.attention = {.scores = scores.requant,
                    .mask = mask.add,
                    .mask_zero_point = mask.zero_point,
                    .exp_high = softmax.exp_high,
                    .exp_low = softmax.exp_low,
                    .context = node.requant};
}

AttentionShape attention_shape(const ModelConfig& config, int capacity) {
  return {.context = capacity,
          .heads = config.num_heads,
          .kv_heads = config.num_kv_heads,
          .head_dim = config.head_dim};
}

}  // namespace

size_t graph_scratch_bytes(const Graph& graph, int capacity, int max_rows) {
  size_t bytes = attention_tiles_scratch_bytes(attention_shape(graph.config, capacity));
  for (const Node& node : graph.nodes) {
    if (node.op != Op::kLinear) continue;
    const Site& weight = graph.site(node.weight);
    for (const int rows : {1, max_rows}) {
      bytes = std::max(bytes, linear_scratch_bytes(rows, weight.cols));
    }
  }
  return bytes;
}

size_t trace_scratch_bytes(const Graph& graph, int capacity, int max_rows) {
  AttentionShape shape = attention_shape(graph.config, capacity);
  size_t bytes = 0;
  for (const int rows : {1, max_rows}) {
    for (const int position : {0, std::max(0, capacity - rows)}) {
      shape.tokens = rows;
      shape.position = position;
      bytes = std::max(bytes, attention_scratch_bytes(shape));
    }
  }
  return bytes;
}

BoundGraph bind_graph(const Artifact& artifact, const Plan& plan, int capacity, std::byte* arena,
                      Isa isa) {
  const Graph& graph = artifact.graph;
  BoundGraph bound;
  bound.isa = isa;
  bound.scratch = arena + plan.scratch_offset;
  bound.cache_stride = static_cast<int64_t>(plan.cache_bytes);
  bound.attention = attention_shape(graph.config, capacity);
  bound.attention.panels = takes_panels(isa);
  for (const Node& node : graph.nodes) {
    bound.nodes.push_back(bind_node(artifact, node, plan, arena));
    if (node.op == Op::kAppend) bound.tail = bound.nodes.size();
    if (node.op == Op::kContext) bind_attention(graph, bound.nodes.size() - 1, bound);
  }
  return bound;
}

void bind_trace(const Graph& graph, const Plan& plan, std::byte* trace_arena, BoundGraph& bound) {
  const auto buffer = [&](int site) -> void* {
    return trace_arena == nullptr ? nullptr
                                  : trace_arena + plan.sites[static_cast<size_t>(site)].offset;
  };
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    BoundNode& n = bound.nodes[i];
    if (graph.site(node.out).role == Role::kScores) n.out = buffer(node.out);
    if (!node.in.empty() && graph.site(node.in[0]).role == Role::kScores)
      n.in0 = buffer(node.in[0]);
  }
  bound.trace_scratch = trace_arena == nullptr ? nullptr : trace_arena + plan.trace_scratch_offset;
}

}  // namespace qnpu
