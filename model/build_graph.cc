// How a decoder is put together: the only place in the program that knows.
//
// D hidden size, H query heads, G KV heads, hd head size, F MLP size (of each layer), V vocabulary.
// All linears are y = x W^T (+ b). Per layer:
//
//   input_layernorm -> q, k, v -> (q_norm, k_norm) -> RoPE -> scores, mask, softmax, context ->
//   o_proj
//   -> + residual -> post_attention_layernorm -> gate, up -> silu * up -> down_proj -> + residual
#include <algorithm>

#include "model/graph.h"
#include "model/site_builder.h"

namespace qnpu {
namespace {

class Builder : SiteBuilder {
 public:
  Builder(const ModelConfig& config, const Recipe& recipe) : SiteBuilder(recipe), c_(config) {
    graph_.config = config;
    r1_ = recipe.r1 != Rotation::kNone;
    r2_ = recipe.r2 != Rotation::kNone;
    r3_ = recipe.r3 != Rotation::kNone;
    r4_ = recipe.r4 != Rotation::kNone;
  }

  Graph build() {
    cos_ = table("rope.cos", 0, c_.head_dim / 2, RangeSource::kFixed);
    sin_ = table("rope.sin", 0, c_.head_dim / 2, RangeSource::kFixed);
    int hidden = embedding();
    for (layer_ = 0; layer_ < c_.num_layers; ++layer_) {
      hidden = attention_block(hidden);
      hidden = mlp_block(hidden);
    }
    layer_ = -1;
    const int x = norm_to(hidden, "norm", "lm_head.in", 16, {8, 16});
    linear("lm_head", x, c_.vocab_size, false, r1_, "logits");
    refuse_unused_rules();
    return std::move(graph_);
  }

 private:
  // ---- nodes ----

  int node(Op op, const std::string& name, std::vector<int> in, int out, int weight = -1,
           int heads = 1, bool bias = false) {
    Node n;
    n.op = op;
    n.name = name;
    n.layer = layer_;
    n.in = std::move(in);
    n.out = out;
    n.weight = weight;
    n.heads = heads;
    n.bias = bias;
    graph_.nodes.push_back(std::move(n));
    return out;
  }

  int to16(int x, const std::string& name) {
    if (bits(x) == 16) return x;
    const int y = tied(name, x, 16, Role::kActivation, at(x).cols);
    return node(Op::kConvert, name, {x}, y);
  }

  // Narrows x into the new site y of 8 or 4 bits, which owns the scale of both.
  int narrow(int x, int y) {
    tie(x, y);
    return node(Op::kConvert, at(y).name, {x}, y);
  }

  // RMSNorm whose result is the input of the linears named by `in_name`, in the width that the
  // recipe gives that site.
  int norm_to(int hidden, const std::string& norm, const std::string& in_name, int default_bits,
              const std::vector<int>& allowed) {
    const std::string name = in_layer(norm);
    const int gamma = table(name + ".weight", 1, c_.hidden_size, RangeSource::kObserved);
    const int x = activation(in_layer(in_name), c_.hidden_size, default_bits, allowed, r1_);
    if (bits(x) == 16) return node(Op::kRmsNorm, name, {hidden}, x, gamma);
    const int wide = activation16(name + ".out", c_.hidden_size, r1_);
    node(Op::kRmsNorm, name, {hidden}, wide, gamma);
    return narrow(wide, x);
  }

  int linear(const std::string& name, int x, int rows, bool bias, bool rotated,
             const std::string& out_name, bool out_rotated = false) {
    Site weight;
    weight.name = name + ".weight";
    weight.role = Role::kWeight;
    weight.rows = rows;
    weight.cols = at(x).cols;
    weight.rotated = rotated;
    weight.qparams.axis = 0;
    const int w = add_site(std::move(weight), {4, 8});
    const int width = std::max(8, bits(x));  // a 4-bit input is read by an 8-bit linear
    const int y = activation(out_name, rows, width, {width}, out_rotated);
    return node(Op::kLinear, name, {x}, y, w, 1, bias);
  }
  int layer_linear(const std::string& module, int x, int rows, bool bias, bool rotated,
                   bool out_rotated = false) {
    const std::string name = in_layer(module);
    return linear(name, x, rows, bias, rotated, name + ".out", out_rotated);
  }

  int embedding() {
    const int weight =
        table("embed_tokens.weight", c_.vocab_size, c_.hidden_size, RangeSource::kObserved);
    at(weight).rotated = r1_;
    const int out = tied("embed_tokens.out", weight, 16, Role::kActivation, c_.hidden_size);
    return node(Op::kEmbedding, "embed_tokens", {}, out, weight);
  }

  // ---- attention ----

  // x * cos + rotate_half(x) * sin, in 16 bits. `which` is "q" or "k".
  int rope(int x, const std::string& which, int heads) {
    const std::string name = in_layer("self_attn." + which + "_rope");
    const int cols = at(x).cols;
    const int half = tied(name + ".half", x, 16, Role::kActivation, cols);
    node(Op::kRotateHalf, name + ".half", {x}, half, -1, heads);
    const int a =
        node(Op::kRopeMul, name + ".cos", {x}, activation16(name + ".cos", cols), cos_, heads);
    const int b =
        node(Op::kRopeMul, name + ".sin", {half}, activation16(name + ".sin", cols), sin_, heads);
    return node(Op::kAdd, name, {a, b}, activation16(name + ".out", cols, r3_));
  }

  // Projection, (norm per head), RoPE: [T, heads * hd] in 16 bits.
  int query_or_key(int x, const std::string& which, int heads) {
    const int cols = heads * c_.head_dim;
    const std::string proj = "self_attn." + which + "_proj";
    int y = layer_linear(proj, x, cols, c_.qkv_bias, r1_);
    y = to16(y, in_layer(proj + ".out16"));
    if (c_.qk_norm) {
      const std::string name = in_layer("self_attn." + which + "_norm");
      const int gamma = table(name + ".weight", 1, c_.head_dim, RangeSource::kObserved);
      y = node(Op::kRmsNorm, name, {y}, activation16(name + ".out", cols), gamma, heads);
    }
    return rope(y, which, heads);
  }

  int append(int rows, const std::string& cache, Role role) {
    const std::string name = in_layer("self_attn." + cache);
    return node(Op::kAppend, name, {rows}, tied(name, rows, 8, role, at(rows).cols));
  }

  int keys(int x) {
    const int wide = query_or_key(x, "k", c_.num_kv_heads);
    const int cols = at(wide).cols;
    const int keys = activation(in_layer("self_attn.k_rope.out8"), cols, 8, {8}, r3_);
    return append(narrow(wide, keys), "k_cache", Role::kKCache);
  }

  int values(int x) {
    const int cols = c_.num_kv_heads * c_.head_dim;
    int v = layer_linear("self_attn.v_proj", x, cols, c_.qkv_bias, r1_ || r2_, r2_);
    if (bits(v) == 16) {
      v = narrow(v, activation(in_layer("self_attn.v_proj.out8"), cols, 8, {8}, r2_));
    }
    return append(v, "v_cache", Role::kVCache);
  }

  int attention(int q, int k_cache, int v_cache) {
    const int heads = c_.num_heads;
    const auto name = [&](const char* s) { return in_layer(std::string("self_attn.") + s); };
    const int scores =
        node(Op::kScores, name("scores"), {q, k_cache},
             scores_site("scores.out", RangeSource::kObserved, true, DType::kS16), -1, heads);
    const int masked =
        node(Op::kMask, name("mask"), {scores},
             scores_site("mask.out", RangeSource::kMask, false, DType::kS16), -1, heads);
    const int probabilities =
        node(Op::kSoftmax, name("softmax"), {masked},
             scores_site("softmax.out", RangeSource::kFixed, false, DType::kU16), -1, heads);
    const int cols = heads * c_.head_dim;
    const int x = activation(name("o_proj.in"), cols, 8, {4, 8, 16}, r2_);
    if (bits(x) == 16) {
      return node(Op::kContext, name("context"), {probabilities, v_cache}, x, -1, heads);
    }
    const int wide = activation16(name("context.out"), cols, r2_);
    node(Op::kContext, name("context"), {probabilities, v_cache}, wide, -1, heads);
    return narrow(wide, x);
  }

  // y (any width) + residual, in 16 bits.
  int residual_add(int residual, int y, const std::string& name) {
    const int wide = to16(y, at(y).name + "16");
    const int out = activation16(in_layer(name + ".out"), c_.hidden_size, r1_);
    return node(Op::kAdd, in_layer(name), {residual, wide}, out);
  }

  int attention_block(int hidden) {
    const int x = norm_to(hidden, "input_layernorm", "self_attn.qkv_proj.in", 8, {4, 8, 16});
    const int q = query_or_key(x, "q", c_.num_heads);
    const int k = keys(x);
    const int v = values(x);
    const int context = attention(q, k, v);
    const int o =
        layer_linear("self_attn.o_proj", context, c_.hidden_size, c_.o_bias, r1_ || r2_, r1_);
    return residual_add(hidden, o, "self_attn.residual");
  }

  // ---- MLP ----

  // silu(gate) * up in the width of its inputs, or in 16 bits if silu.out or down_proj.in asks so.
  int gated(int gate, int up) {
    const std::string name = in_layer("mlp.silu");
    const int cols = c_.mlp_size(layer_);
    const int x = activation(in_layer("mlp.down_proj.in"), cols, 8, {8, 16}, r4_);
    const int inner = std::max(bits(gate), bits(x));
    Site silu;
    silu.name = name + ".out";
    silu.cols = cols;
    silu.spec.bitwidth = inner;
    silu.spec.symmetric = inner == 16;  // 8 bits: SiLU is never below -0.279, do not waste codes
    const int activated = add_site(std::move(silu), {inner, 16});
    const int width = bits(activated);
    if (width == 16) {
      gate = to16(gate, in_layer("mlp.gate_proj.out16"));
      up = to16(up, in_layer("mlp.up_proj.out16"));
    }
    node(Op::kSilu, name, {gate}, activated);
    if (width == bits(x)) return node(Op::kMul, in_layer("mlp.mul"), {activated, up}, x);
    const int wide = activation16(in_layer("mlp.mul.out"), cols, r4_);
    node(Op::kMul, in_layer("mlp.mul"), {activated, up}, wide);
    return narrow(wide, x);
  }

  int mlp_block(int hidden) {
    const int x = norm_to(hidden, "post_attention_layernorm", "mlp.gate_up_proj.in", 8, {4, 8, 16});
    const int width = c_.mlp_size(layer_);
    const int gate = layer_linear("mlp.gate_proj", x, width, false, r1_);
    const int up = layer_linear("mlp.up_proj", x, width, false, r1_);
    const int inner = gated(gate, up);
    const int down = layer_linear("mlp.down_proj", inner, c_.hidden_size, false, r1_ || r4_, r1_);
    return residual_add(hidden, down, "mlp.residual");
  }

  const ModelConfig& c_;
  bool r1_ = false, r2_ = false, r3_ = false, r4_ = false;
  int cos_ = -1, sin_ = -1;
};

}  // namespace

Graph build_graph(const ModelConfig& config, const Recipe& recipe) {
  return Builder(config, recipe).build();
}

}  // namespace qnpu
