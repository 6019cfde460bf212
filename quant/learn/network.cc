#include "quant/learn/network.h"

#include <algorithm>
#include <string>

#include "base/status.h"
#include "quant/learn/attention.h"
#include "quant/learn/differentiable.h"
#include "quant/learn/ops.h"
#include "quant/weights.h"

namespace qnpu {

using torch::Tensor;

Network::Network(const FloatModel& model, const Graph& graph, const NetworkOptions& options)
    : model_(model),
      graph_(graph),
      options_(options),
      wide_(options.type == torch::kFloat64 ? torch::kFloat64 : torch::kFloat32),
      group_of_(graph.sites.size(), -1) {
  find_layers();
  for (const Node& node : graph.nodes) {
    if (node.op == Op::kLinear && group_of_[node.in[0]] < 0) make_group(node.in[0]);
  }
  const auto positions =
      static_cast<int64_t>(model.prefix.tokens.size()) + graph.config.max_positions;
  const Tensor angles =
      torch::outer(torch::arange(positions, torch::kFloat64),
                   torch::tensor(rope_inverse_frequencies(graph.config), torch::kFloat64));
  cos_ = angles.cos().to(device_of(model), wide_);
  sin_ = angles.sin().to(device_of(model), wide_);
}

// Layers are runs of nodes with one `layer`; after them come the final norm and the head.
void Network::find_layers() {
  const int count = static_cast<int>(graph_.nodes.size());
  int i = 1;  // the embedding is node 0
  while (i < count && graph_.nodes[i].layer >= 0) {
    const int begin = i;
    while (i < count && graph_.nodes[i].layer == graph_.nodes[begin].layer) ++i;
    layers_.push_back({begin, i});
  }
  tail_ = {i, count - 1};
  QNPU_ASSERT(graph_.nodes.back().op == Op::kLinear);
}

void Network::make_group(int site) {
  LinearGroup group;
  group.site = site;
  for (int i = 0; i < graph_.nodes.size(); ++i) {
    const Node& node = graph_.nodes[i];
    if (node.op != Op::kLinear || node.in[0] != site) continue;
    const int64_t first =
        group.parts.empty() ? 0 : group.parts.back().first + group.parts.back().rows;
    group.parts.push_back({i, first, graph_.site(node.weight).rows, output_grid(node.out)});
  }
  const bool is_head = group.parts.front().node == graph_.nodes.size() - 1;
  const bool round = !is_head || options_.round_head;
  const QParams& input = graph_.site(site).qparams;
  if (options_.round_inputs && round && bitwidth(input.dtype) <= 8) {
    if (options_.dynamic_inputs) {
      group.token_qmax = static_cast<float>(integer_range(input.dtype).qmax);
    } else {
      group.input = grid_of(input);
    }
  }
  fill(group, options_.round_weights && round);
  if (is_head) {
    head_ = std::move(group);
  } else {
    group_of_[site] = static_cast<int>(groups_.size());
    groups_.push_back(std::move(group));
  }
}

// Integers and scales; with `round` off the weights themselves and ones.
void Network::fill(LinearGroup& group, bool round) {
  const Tensor weights = stacked_weights(group);
  if (round) {
    group.scale = stacked_scales(group, weights);
    group.codes = torch::empty(weights.sizes(), weights.options().dtype(options_.type));
    for (const LinearPart& part : group.parts) {
      const auto rows = [&](const Tensor& t) { return t.narrow(0, part.first, part.rows); };
      const auto [qmin, qmax] = weight_range(graph_.site(graph_.nodes[part.node].weight).spec);
      const Grid grid{1.0f, static_cast<float>(qmin), static_cast<float>(qmax)};
      const Tensor steps = rows(weights) / rows(group.scale).unsqueeze(1);
      rows(group.codes).copy_(ops::fake_quant(steps, grid, 1.0f, options_.type));
    }
  } else {
    group.scale = torch::ones({weights.size(0)}, weights.options().dtype(wide_));
    group.codes = weights.to(options_.type);
  }
  group.scale = group.scale.to(wide_);
}

// [N] of a group, turned or divided like its linears' outputs; undefined: none.
Tensor Network::bias(const LinearGroup& group) const {
  std::vector<Tensor> parts;
  for (const LinearPart& part : group.parts) {
    const Node& node = graph_.nodes[part.node];
    if (!node.bias) return {};
    Tensor b = weight(node.name + ".bias").to(wide_);
    if (!r2.empty() && node.name.ends_with("v_proj")) {
      b = torch::matmul(b.view({-1, graph_.config.head_dim}), r2[node.layer]).flatten();
    }
    if (r1.defined() && node.name.ends_with("o_proj")) b = torch::matmul(b, r1);
    const auto divisor = divisors.find(node.name);
    if (divisor != divisors.end()) b = b / divisor->second;
    parts.push_back(b);
  }
  return torch::cat(parts);
}

Tensor Network::stacked_weights(const LinearGroup& group) const {
  std::vector<Tensor> weights;
  for (const LinearPart& part : group.parts) {
    weights.push_back(weight(graph_.site(graph_.nodes[part.node].weight).name));
  }
  return weights.size() == 1 ? weights.front() : torch::cat(weights);
}

// A row of zeros takes the mean of the others, since it may learn to be something else.
Tensor Network::stacked_scales(const LinearGroup& group, const Tensor& weights) const {
  Tensor scales = torch::empty({group.parts.back().first + group.parts.back().rows});
  const Tensor here = weights.cpu();
  for (const LinearPart& part : group.parts) {
    const Site& site = graph_.site(graph_.nodes[part.node].weight);
    float* to = scales.data_ptr<float>() + part.first;
    if (site.qparams.scale.empty()) {
      const Tensor w = here.narrow(0, part.first, part.rows);
      weight_scales({w.data_ptr<float>(), w.size(0), w.size(1)}, site.spec, site.rotated, to);
    } else if (static_cast<int64_t>(site.qparams.scale.size()) == part.rows) {
      std::copy(site.qparams.scale.begin(), site.qparams.scale.end(), to);
    } else {
      fail("site '{}' has a scale per block: learning takes one scale per output channel only",
           site.name);
    }
    Tensor rows = scales.narrow(0, part.first, part.rows);
    const int64_t others = rows.count_nonzero().item<int64_t>();
    rows.masked_fill_(rows == 0, others == 0 ? 1.0 : rows.sum().item<double>() / others);
  }
  return scales.to(weights.device());
}

Tensor Network::embed(const Tensor& tokens) const {
  const Node& node = graph_.nodes.front();
  QNPU_ASSERT(node.op == Op::kEmbedding);
  const Tensor& table = weight(graph_.site(node.weight).name);
  const Tensor rows = torch::embedding(table, tokens.flatten().to(table.device())).to(wide_);
  return r1.defined() ? torch::matmul(rows, r1) : rows;
}

Tensor Network::layer(int layer, const Tensor& hidden, int64_t batch) {
  const Range range = layers_[static_cast<size_t>(layer)];
  const int in = layer == 0 ? graph_.nodes.front().out : graph_.nodes[range.begin - 1].out;
  return run(range, in, hidden, batch);
}

Tensor Network::head_input(const Tensor& hidden) {
  const Tensor x = run(tail_, graph_.nodes[tail_.begin - 1].out, hidden, 1);
  if (r1.defined()) return torch::matmul(x, r1.t());
  if (head_.token_qmax > 0.0f) {
    const plain::RoundedRows rows = plain::round_rows(x.detach(), head_.token_qmax);
    return x + (rows.codes * rows.scale - x.detach());
  }
  return head_.input.used() ? fake_quant(x, head_.input) : x;
}

Tensor Network::run(Range range, int in, const Tensor& value, int64_t batch) {
  Walk walk{std::vector<Tensor>(graph_.sites.size()), batch};
  walk.values[in] = value;
  for (int i = range.begin; i < range.end;) i = evaluate(i, walk);
  return walk.values[graph_.nodes[range.end - 1].out];
}

// Computes node i, and those that belong to it; returns the next one.
int Network::evaluate(int i, Walk& walk) {
  const Node& node = graph_.nodes[i];
  auto& values = walk.values;
  const Tensor& in = values[node.in[0]];
  switch (node.op) {
    case Op::kRmsNorm:
      values[node.out] = rms_norm(in, gamma(node.weight), node.heads, graph_.config.rms_norm_eps);
      return i + 1;
    case Op::kConvert:
    case Op::kAppend: {
      // Inputs of linears are rounded with their linears, caches hold rows that were rounded.
      const bool rounded_later = group_of_[node.out] >= 0 || node.out == head_.site;
      const Grid grid = node.op == Op::kConvert && !rounded_later ? output_grid(node.out) : Grid{};
      values[node.out] = grid.used() ? fake_quant(in, grid) : in;
      return i + 1;
    }
    case Op::kLinear:
      evaluate_linear(node, walk);
      return i + 1;
    case Op::kRotateHalf:
      return evaluate_rope(i, walk);
    case Op::kScores:
      return evaluate_attention(i, walk);
    case Op::kSilu:
      return evaluate_silu(i, walk);
    case Op::kAdd:
      values[node.out] = in + values[node.in[1]];
      return i + 1;
    default:
      fail("node {} of kind {} stands where learning cannot compute it", node.name,
           op_name(node.op));
  }
}

// The first of a group computes all of them.
void Network::evaluate_linear(const Node& node, Walk& walk) {
  if (walk.values[node.out].defined()) return;
  LinearGroup& group = groups_[static_cast<size_t>(group_of_[node.in[0]])];
  const Tensors outputs = linears(walk.values[node.in[0]], group, bias(group));
  for (size_t j = 0; j < outputs.size(); ++j) {
    walk.values[graph_.nodes[group.parts[j].node].out] = outputs[j];
  }
}

// rotate half, x cos, rotated sin, and their sum.
int Network::evaluate_rope(int i, Walk& walk) {
  const Node& rotate = graph_.nodes[i];
  const Node& sum = graph_.nodes[i + 3];
  QNPU_ASSERT(graph_.nodes[i + 1].op == Op::kRopeMul && graph_.nodes[i + 2].op == Op::kRopeMul &&
              sum.op == Op::kAdd);
  const Tensor& x = walk.values[rotate.in[0]];
  const int64_t tokens = x.size(0) / walk.batch;
  walk.values[sum.out] = rope(x, rope_rows(cos_, tokens), rope_rows(sin_, tokens), rotate.heads);
  return i + 4;
}

int Network::evaluate_attention(int i, Walk& walk) {
  int end = i;
  while (graph_.nodes[end].op != Op::kContext) ++end;
  const Node& scores = graph_.nodes[i];
  const int k_cache = scores.in[1];
  const int v_cache = graph_.nodes[end].in[1];
  const ModelConfig& config = graph_.config;
  const Tensor& q = walk.values[scores.in[0]];
  AttentionSpec shape;
  shape.batch = walk.batch;
  shape.tokens = q.size(0) / walk.batch;
  shape.kv_heads = config.num_kv_heads;
  shape.group = config.num_heads / config.num_kv_heads;
  shape.head_dim = config.head_dim;
  shape.scale = model_.attention_scale;
  shape.prefix_k = prefix_rows(k_cache);
  shape.prefix_v = prefix_rows(v_cache);
  walk.values[graph_.nodes[end].out] =
      attention(q, walk.values[k_cache], walk.values[v_cache], shape);
  return end + 1;
}

int Network::evaluate_silu(int i, Walk& walk) {
  const Node& silu = graph_.nodes[i];
  const Node& product = graph_.nodes[i + 1];
  QNPU_ASSERT(product.op == Op::kMul && product.in[0] == silu.out);
  walk.values[product.out] =
      silu_mul(walk.values[silu.in[0]], walk.values[product.in[1]], output_grid(silu.out));
  return i + 2;
}

Tensor Network::rope_rows(const Tensor& table, int64_t tokens) const {
  return table.narrow(0, static_cast<int64_t>(model_.prefix.tokens.size()), tokens);
}

// Of a site that is rounded only with round_outputs.
Grid Network::output_grid(int site) const {
  const QParams& qparams = graph_.site(site).qparams;
  return options_.round_outputs && bitwidth(qparams.dtype) <= 8 ? grid_of(qparams) : Grid{};
}

Tensor Network::gamma(int site) const {
  const auto learned = gammas.find(site);
  if (learned != gammas.end()) return learned->second;
  return weight(graph_.site(site).name).to(wide_);
}

const Tensor& Network::weight(const std::string& name) const {
  const auto found = model_.weights.find(name);
  if (found == model_.weights.end()) fail("the float model has no tensor '{}'", name);
  return found->second;
}

// The prefix's rows of a cache, on the cache's grid if outputs are rounded.
Tensor Network::prefix_rows(int cache) const {
  const auto found = model_.prefix.rows.find(graph_.site(cache).name);
  if (found == model_.prefix.rows.end()) return {};
  Tensor rows = found->second.to(wide_);
  const Site& site = graph_.site(cache);
  if (site.role == Role::kVCache && !r2.empty()) {
    const Tensor heads = rows.view({-1, graph_.config.head_dim});
    rows = torch::matmul(heads, r2[static_cast<size_t>(site.layer)]).view(rows.sizes());
  }
  const auto divisor = divisors.find(fmt::format("layers.{}.self_attn.v_proj", site.layer));
  if (site.role == Role::kVCache && divisor != divisors.end()) rows = rows / divisor->second;
  const Grid grid = output_grid(cache);
  return grid.used() ? fake_quant(rows, grid) : rows;
}

}  // namespace qnpu
