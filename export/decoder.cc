#include "export/decoder.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/status.h"

namespace qnpu {
namespace {

constexpr int kMaskZero = 65535;
const Quantized kMaskQuantized = {OnnxType::kU16, 100.0f / 65535.0f, kMaskZero};

// Signed integers as the NPU stores them.
template <typename Stored, typename Signed>
std::vector<std::byte> stored_unsigned(std::span<const Signed> values) {
  constexpr int kHalf = 1 << (8 * sizeof(Signed) - 1);
  std::vector<std::byte> bytes(values.size_bytes());
  auto* out = reinterpret_cast<Stored*>(bytes.data());
  std::transform(values.begin(), values.end(), out,
                 [](Signed x) { return static_cast<Stored>(x + kHalf); });
  return bytes;
}

enum class Layout {
  kRows,    // [T, cols]
  kHeads,   // [1, T, heads, head_dim]: the same order
  kGroups,  // [KV, 1, heads per KV * T, ...]
};

struct Placed {
  OnnxTensor tensor;
  Layout layout = Layout::kRows;
};

class DecoderWriter {
 public:
  DecoderWriter(const Artifact& artifact, const DecoderOptions& options, WeightFile& weights)
      : a_(artifact),
        g_(artifact.graph),
        c_(artifact.graph.config),
        o_(options),
        weights_(weights),
        out_("decoder", weights),
        rows_(options.rows),
        past_(options.context - g_.prefix_length() - options.rows) {
    check_sizes();
  }

  DecoderModel write() {
    inputs();
    for (const Node& node : g_.nodes) add(node);
    logits();
    DecoderModel result{out_.model(), {}};
    for (const auto& [site, placed] : placed_) {
      result.sites[g_.site(site).name] = {placed.tensor.name, placed.tensor.shape};
    }
    return result;
  }

 private:
  void check_sizes() const {
    const int least = g_.prefix_length() + 2 * rows_;
    if (rows_ < 1 || o_.context < least || o_.context > a_.positions) {
      fail("a graph of {} tokens in a context of {}: this artifact allows contexts of {} to {}",
           rows_, o_.context, least, a_.positions);
    }
  }

  // ---- inputs ----

  void inputs() {
    ids_ = out_.integer_input("input_ids", {1, rows_}, OnnxType::kS32);
    mask();
    if (o_.rope == RopeInput::kPositions) {
      positions_ = out_.integer_input(o_.names.positions, {1, rows_}, OnnxType::kS32);
    }
  }

  // [1, N, L] -> [1, 1, heads per KV * N, C]
  void mask() {
    const int64_t visible = o_.context - g_.prefix_length();
    OnnxTensor mask = out_.input(o_.names.mask, {1, rows_, visible}, kMaskQuantized);
    if (g_.prefix_length() > 0) {
      const int64_t p = g_.prefix_length();
      std::vector<std::byte> ones(static_cast<size_t>(2 * rows_ * p), std::byte{0xff});
      const std::string name = fmt::format("attention_mask.prefix.{}", rows_);
      mask = out_.concat({owned(name, {1, rows_, p}, std::move(ones), kMaskQuantized), mask},
                         "attention_mask.all", 2);
    }
    mask = out_.reshape(mask, "attention_mask.rows", {1, 1, rows_, o_.context});
    const auto groups = static_cast<size_t>(c_.num_heads / c_.num_kv_heads);
    mask_ = groups == 1 ? mask
                        : out_.concat(std::vector<OnnxTensor>(groups, mask),
                                      "attention_mask.groups", 2);
  }

  // A constant activation whose bytes are made here.
  OnnxTensor owned(const std::string& name, const Shape& shape, std::vector<std::byte> data,
                   const Quantized& q) {
    weights_.add(name, std::move(data));
    return {out_.constant(name, q.type, shape, weights_.view(name)), shape, q};
  }

  // The table "rope.cos" or "rope.sin" for the new tokens: [1, N, 1, hd].
  OnnxTensor rope_table(int site) {
    const auto found = tables_.find(site);
    if (found != tables_.end()) return found->second;
    const std::string name = g_.site(site).name;  // "rope.cos"
    const int64_t half = c_.head_dim / 2;
    OnnxTensor rows;
    if (o_.rope == RopeInput::kCosSin) {
      rows = out_.input("position_ids_" + name.substr(5), {1, rows_, half}, stored_as(g_.site(site)));
    } else {
      rows = gather(table(site, g_.prefix_length()), positions_, name + ".rows");
    }
    rows = out_.reshape(rows, name + ".heads", {1, rows_, 1, half});
    return tables_[site] = out_.concat({rows, rows}, name + ".both", 3);
  }

  // ---- constants ----

  // Rows [first, ...) of an int16 table.
  OnnxTensor table(int site, int64_t first = 0) {
    const Site& s = g_.site(site);
    const TensorView& view = a_.tensors.at(s.name);
    Shape shape = view.shape;
    const int64_t cols = shape.back();
    if (shape.size() > 1) shape[0] -= first;
    std::vector<std::byte> data;
    if (!weights_.contains(s.name)) {
      data = stored_unsigned<uint16_t>(view.as<int16_t>().subspan(static_cast<size_t>(first * cols)));
    }
    return owned(s.name, shape, std::move(data), stored_as(s));
  }

  OnnxTensor gather(const OnnxTensor& from, const std::string& indices, const std::string& name) {
    const std::string edge = out_.op("Gather", name + "/gather", {out_.real(from), indices});
    return out_.stored(edge, name, {1, rows_, from.shape.back()}, from.quantized);
  }

  // ---- sites ----

  const OnnxTensor& at(int site) const { return placed_.at(site).tensor; }
  Layout layout(int site) const { return placed_.at(site).layout; }

  void place(int site, OnnxTensor tensor, Layout layout) {
    if (o_.trace) out_.output(tensor);
    placed_[site] = {std::move(tensor), layout};
  }
  // The result of a node's operation at its output site.
  void store(const Node& node, const std::string& edge, const Shape& shape, Layout layout) {
    const Site& site = g_.site(node.out);
    const bool last = node.out == g_.nodes.back().out;  // the output has the name of its site
    const std::string name = last ? site.name + ".rows" : site.name;
    place(node.out, out_.stored(edge, name, shape, stored_as(site)), layout);
  }

  int heads_of(int site) const { return g_.site(site).cols / c_.head_dim; }

  OnnxTensor rows(int site) {
    const Placed& x = placed_.at(site);
    const std::string& name = g_.site(site).name;
    const int64_t count = rows_, cols = g_.site(site).cols;
    if (x.layout == Layout::kRows) return x.tensor;
    if (x.layout == Layout::kHeads || rows_ == 1) {
      return out_.reshape(x.tensor, name + ".rows", {count, cols});
    }
    const int64_t heads = heads_of(site);
    OnnxTensor t = out_.reshape(x.tensor, name + ".by_head", {1, heads, count, c_.head_dim});
    t = out_.transpose(t, name + ".by_row", {0, 2, 1, 3});
    return out_.reshape(t, name + ".rows", {count, cols});
  }

  OnnxTensor heads(int site) {
    const Placed& x = placed_.at(site);
    if (x.layout == Layout::kHeads) return x.tensor;
    const auto found = by_heads_.find(site);
    if (found != by_heads_.end()) return found->second;
    return by_heads_[site] = out_.reshape(x.tensor, g_.site(site).name + ".heads",
                                          {1, rows_, heads_of(site), c_.head_dim});
  }

  // [1, N, H, hd] -> [KV, 1, H / KV * N, hd]
  OnnxTensor groups(int site) {
    const Shape shape = {c_.num_kv_heads, 1, c_.num_heads / c_.num_kv_heads * rows_, c_.head_dim};
    const std::string& name = g_.site(site).name;
    OnnxTensor x = heads(site);
    if (rows_ > 1) x = out_.transpose(x, name + ".by_head", {0, 2, 1, 3});
    return out_.reshape(x, name + ".groups", shape);
  }

  // ---- operations ----

  void add(const Node& node) {
    switch (node.op) {
      case Op::kEmbedding:
        return embedding(node);
      case Op::kRmsNorm:
        return rmsnorm(node);
      case Op::kConvert:
        return store(node, out_.real(at(node.in[0])), at(node.in[0]).shape, layout(node.in[0]));
      case Op::kLinear:
        return linear(node);
      case Op::kRotateHalf:
        return rotate_half(node);
      case Op::kRopeMul:
        return rope_mul(node);
      case Op::kAdd:
        return binary(node, "Add");
      case Op::kMul:
        return binary(node, "Mul");
      case Op::kSilu:
        return silu(node);
      case Op::kAppend:
        return append(node);
      case Op::kScores:
        return scores(node);
      case Op::kMask:
        return masked(node);
      case Op::kSoftmax:
        return softmax(node);
      case Op::kContext:
        return context(node);
    }
  }

  void embedding(const Node& node) {
    const std::string& name = g_.site(node.out).name;
    const OnnxTensor x = gather(table(node.weight), ids_, name + ".gathered");
    place(node.out, out_.reshape(x, name, {rows_, g_.site(node.out).cols}), Layout::kRows);
  }

  void rmsnorm(const Node& node) {
    if (node.layer < 0 && !o_.all_logits) last_row(node.in[0]);
    const OnnxTensor x = node.heads > 1 ? heads(node.in[0]) : rows(node.in[0]);
    const std::string edge =
        out_.op("SimplifiedLayerNormalization", node.name, {out_.real(x), out_.real(table(node.weight))},
                {{"epsilon", static_cast<float>(c_.rms_norm_eps)}, {"axis", int64_t{-1}}});
    store(node, edge, x.shape, node.heads > 1 ? Layout::kHeads : Layout::kRows);
  }

  // What follows sees the last token alone.
  void last_row(int site) {
    if (rows_ == 1) return;
    placed_[site].tensor =
        out_.slice(rows(site), g_.site(site).name + ".last", 0, rows_ - 1, rows_);
    placed_[site].layout = Layout::kRows;
  }

  void linear(const Node& node) {
    const OnnxTensor x = rows(node.in[0]);
    const Site& site = g_.site(node.weight);
    const TensorView& view = a_.tensors.at(site.name);
    const std::span<const float> scales = a_.tensors.at(site.name + ".scale").as<float>();
    const Shape shape = {site.rows, site.cols};
    const bool nibbles = site.qparams.dtype == DType::kS4;
    std::vector<std::string> inputs = {
        out_.real(x), out_.real_weight(site.name, nibbles ? OnnxType::kS4 : OnnxType::kS8, shape,
                                       {view.data, view.bytes}, scales)};
    if (node.bias) inputs.push_back(bias(node, x.quantized, scales));
    const std::string edge = out_.op("Gemm", node.name, inputs, {{"transB", int64_t{1}}});
    store(node, edge, {x.shape[0], site.rows}, Layout::kRows);
  }

  // Of a 16-bit linear the artifact has it divided by 256, as the compiler will divide it.
  std::string bias(const Node& node, const Quantized& x, std::span<const float> weight_scales) {
    const std::string name = node.name + ".bias";
    const auto stored = a_.tensors.at(name).as<int32_t>();
    const int32_t unit = x.type == OnnxType::kU16 ? 256 : 1;
    if (!weights_.contains(name)) {
      std::vector<int32_t> values;
      std::vector<float> scales;
      for (const int32_t b : stored) values.push_back(b * unit);
      for (const float s : weight_scales) scales.push_back(x.scale * s);
      weights_.add(name, to_bytes(values));
      weights_.add(name + ".scale", to_bytes(scales));
    }
    const auto scales = weights_.view(name + ".scale");
    return out_.real_weight(name, OnnxType::kS32, {std::ssize(stored)}, weights_.view(name),
                            {reinterpret_cast<const float*>(scales.data()), stored.size()});
  }

  template <typename T>
  static std::vector<std::byte> to_bytes(const std::vector<T>& values) {
    const auto bytes = std::as_bytes(std::span(values));
    return {bytes.begin(), bytes.end()};
  }

  // [a, b] -> [-b, a] in each head.
  void rotate_half(const Node& node) {
    const std::string& name = g_.site(node.out).name;
    const OnnxTensor x = heads(node.in[0]);
    const int64_t half = c_.head_dim / 2;
    const OnnxTensor a = out_.slice(x, name + ".first", 3, 0, half);
    const OnnxTensor b = out_.slice(x, name + ".second", 3, half, c_.head_dim);
    const OnnxTensor minus = out_.stored(out_.op("Neg", name + ".negated/neg", {out_.real(b)}),
                                         name + ".negated", b.shape, b.quantized);
    place(node.out, out_.concat({minus, a}, name, 3), Layout::kHeads);
  }

  void rope_mul(const Node& node) {
    const OnnxTensor x = heads(node.in[0]);
    const OnnxTensor table = rope_table(node.weight);
    const std::string edge = out_.op("Mul", node.name, {out_.real(x), out_.real(table)});
    store(node, edge, x.shape, Layout::kHeads);
  }

  void binary(const Node& node, const char* type) {
    const bool alike = layout(node.in[0]) == layout(node.in[1]);
    const OnnxTensor a = alike ? at(node.in[0]) : rows(node.in[0]);
    const OnnxTensor b = alike ? at(node.in[1]) : rows(node.in[1]);
    const std::string edge = out_.op(type, node.name, {out_.real(a), out_.real(b)});
    store(node, edge, a.shape, alike ? layout(node.in[0]) : Layout::kRows);
  }

  // The compiler makes one operation of the pair.
  void silu(const Node& node) {
    const OnnxTensor& x = at(node.in[0]);
    const bool wide = x.quantized.type == OnnxType::kU16;
    const std::string name = node.name + ".sigmoid";
    const OnnxTensor gate =
        out_.stored(out_.op("Sigmoid", name + "/sigmoid", {out_.real(x)}), name, x.shape,
                    {x.quantized.type, wide ? 1.0f / 65536.0f : 1.0f / 256.0f, 0});
    const std::string edge = out_.op("Mul", node.name, {out_.real(x), out_.real(gate)});
    store(node, edge, x.shape, layout(node.in[0]));
  }

  // ---- attention ----

  // New rows become outputs; the cache is prefix, past and new ones.
  void append(const Node& node) {
    const Site& site = g_.site(node.out);
    const bool keys = site.role == Role::kKCache;
    const int64_t kv = c_.num_kv_heads, hd = c_.head_dim;
    const auto shape = [&](int64_t count) {
      return keys ? Shape{kv, 1, hd, count} : Shape{kv, 1, count, hd};
    };
    const auto name = [&](const std::string& pattern) {
      return fmt::format(fmt::runtime(pattern), node.layer);
    };
    const std::string new_name = name(keys ? o_.names.new_key : o_.names.new_value);
    const OnnxTensor x = heads(node.in[0]);
    const OnnxTensor added =
        rows_ == 1 ? out_.reshape(x, new_name, shape(1))
                   : out_.transpose(x, new_name, {2, 0, keys ? 3 : 1, keys ? 1 : 3});
    out_.output(added);
    std::vector<OnnxTensor> parts;
    if (g_.prefix_length() > 0) parts.push_back(prefix(site, keys, shape(g_.prefix_length())));
    parts.push_back(out_.input(name(keys ? o_.names.past_key : o_.names.past_value), shape(past_),
                               stored_as(site)));
    parts.push_back(added);
    placed_[node.out] = {out_.concat(parts, site.name, keys ? 3 : 2), Layout::kGroups};
  }

  // Stored [P, KV * hd].
  OnnxTensor prefix(const Site& site, bool keys, const Shape& shape) {
    const std::string name = site.name + ".prefix";
    const auto stored = a_.tensors.at(name).as<int8_t>();
    const int64_t p = g_.prefix_length(), kv = c_.num_kv_heads, hd = c_.head_dim;
    std::vector<std::byte> data(stored.size());
    for (int64_t t = 0; t < p; ++t) {
      for (int64_t h = 0; h < kv; ++h) {
        for (int64_t d = 0; d < hd; ++d) {
          const int64_t to = keys ? (h * hd + d) * p + t : (h * p + t) * hd + d;
          data[static_cast<size_t>(to)] =
              static_cast<std::byte>(stored[static_cast<size_t>((t * kv + h) * hd + d)] + 128);
        }
      }
    }
    return owned(name, shape, std::move(data), stored_as(site));
  }

  void scores(const Node& node) {
    const OnnxTensor q = groups(node.in[0]);
    product(node, q, at(node.in[1]), o_.context);
  }

  void product(const Node& node, const OnnxTensor& a, const OnnxTensor& b, int64_t cols) {
    Shape shape = a.shape;
    shape.back() = cols;
    store(node, out_.op("MatMul", node.name, {out_.real(a), out_.real(b)}), shape, Layout::kGroups);
  }

  void masked(const Node& node) {
    const OnnxTensor& x = at(node.in[0]);
    const std::string edge = out_.op("Add", node.name, {out_.real(x), out_.real(mask_)});
    store(node, edge, x.shape, Layout::kGroups);
  }

  void softmax(const Node& node) {
    const OnnxTensor& x = at(node.in[0]);
    const std::string edge =
        out_.op("Softmax", node.name, {out_.real(x)}, {{"axis", int64_t{-1}}});
    store(node, edge, x.shape, Layout::kGroups);
  }

  void context(const Node& node) { product(node, at(node.in[0]), at(node.in[1]), c_.head_dim); }

  // [rows, V] -> [1, rows, V]
  void logits() {
    const OnnxTensor x = at(g_.nodes.back().out);
    out_.output(out_.reshape(x, o_.names.logits, {1, x.shape[0], x.shape[1]}));
  }

  const Artifact& a_;
  const Graph& g_;
  const ModelConfig& c_;
  const DecoderOptions& o_;
  WeightFile& weights_;
  OnnxGraph out_;
  const int64_t rows_;
  const int64_t past_;
  std::string ids_, positions_;
  OnnxTensor mask_;
  std::map<int, Placed> placed_;  // by site
  std::map<int, OnnxTensor> by_heads_, tables_;
};

}  // namespace

Quantized stored_as(const Site& site) {
  const auto make = [&](OnnxType type, int half) {
    return Quantized{type, site.qparams.scale[0], site.qparams.zero_point[0] + half};
  };
  switch (site.qparams.dtype) {
    case DType::kS8:
      return make(OnnxType::kU8, 128);
    case DType::kS16:
      return make(OnnxType::kU16, 32768);
    case DType::kU16:
      return make(OnnxType::kU16, 0);
    default:
      fail("site '{}' is stored in {}, which the NPU has not; quantize with 8 or 16 bits there",
           site.name, dtype_name(site.qparams.dtype));
  }
}

DecoderNames genie_names() {
  return {"attention_mask",     "position_ids",     "logits",
          "past_key_{}_in",     "past_value_{}_in", "past_key_{}_out",
          "past_value_{}_out"};
}

DecoderNames ort_genai_names() {
  return {"npu_mask",           "npu_positions",     "npu_logits",
          "past_keys_{}_in",    "past_values_{}_in", "past_keys_{}_out",
          "past_values_{}_out"};
}

DecoderModel make_decoder(const Artifact& artifact, const DecoderOptions& options,
                          WeightFile& weights) {
  return DecoderWriter(artifact, options, weights).write();
}

}  // namespace qnpu
