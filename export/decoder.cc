#include "export/decoder.h"

#include <fmt/format.h>

#include "base/status.h"
#include "export/decoder_sites.h"
#include "model/laws.h"

namespace qnpu {
namespace {

constexpr int kMaskZero = 65535;
const Quantized kMaskQuantized = {OnnxType::kU16, 100.0f / 65535.0f, kMaskZero};

class DecoderWriter : DecoderSites {
 public:
  DecoderWriter(const Artifact& artifact, const DecoderOptions& options, WeightFile& weights)
      : DecoderSites(artifact, options, weights),
        past_(options.context - g_.prefix_length() - options.rows) {
    check_sizes();
  }

  DecoderModel write() {
    inputs();
    for (const Node& node : g_.nodes) add(node);
    logits();
    DecoderModel result{out_.model(), {}, out_.encodings()};
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
    mask_ = groups == 1
                ? mask
                : out_.concat(std::vector<OnnxTensor>(groups, mask), "attention_mask.groups", 2);
  }

  // The table "rope.cos" or "rope.sin" for the new tokens: [1, N, 1, hd].
  OnnxTensor rope_table(int site) {
    const auto found = tables_.find(site);
    if (found != tables_.end()) return found->second;
    const std::string name = g_.site(site).name;  // "rope.cos"
    const int64_t half = c_.head_dim / 2;
    OnnxTensor rows;
    if (o_.rope == RopeInput::kCosSin) {
      rows =
          out_.input("position_ids_" + name.substr(5), {1, rows_, half}, stored_as(g_.site(site)));
    } else {
      rows = gather(table(site, g_.prefix_length()), positions_, name + ".rows");
    }
    rows = out_.reshape(rows, name + ".heads", {1, rows_, 1, half});
    return tables_[site] = out_.concat({rows, rows}, name + ".both", 3);
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
    const std::string gamma = out_.real(table(node.weight));
    const auto epsilon = static_cast<float>(c_.rms_norm_eps);
    const std::string edge =
        out_.form() == Form::kFloat
            ? plain_rmsnorm(node.name, x, gamma, epsilon)
            : out_.op("SimplifiedLayerNormalization", node.name, {out_.real(x), gamma},
                      {{"epsilon", epsilon}, {"axis", int64_t{-1}}});
    store(node, edge, x.shape, node.heads > 1 ? Layout::kHeads : Layout::kRows);
  }

  // In ONNX's standard operations, for converters that look for this pattern.
  std::string plain_rmsnorm(const std::string& name, const OnnxTensor& x, const std::string& gamma,
                            float epsilon) {
    const std::string in = out_.real(x);
    const auto op = [&](const char* type, const char* part,
                        const std::vector<std::string>& inputs) {
      return out_.op(type, name + part, inputs);
    };
    const std::string mean =
        op("ReduceMean", "/mean", {op("Mul", "/square", {in, in}), out_.integers({-1})});
    const std::string root =
        op("Sqrt", "/root", {op("Add", "/epsilon", {mean, out_.scalar(epsilon)})});
    return op("Mul", "", {op("Div", "/divide", {in, root}), gamma});
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
    const OnnxTensor added = rows_ == 1
                                 ? out_.reshape(x, new_name, shape(1))
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
    const std::string edge = out_.op("Softmax", node.name, {out_.real(x)}, {{"axis", int64_t{-1}}});
    store(node, edge, x.shape, Layout::kGroups);
  }

  void context(const Node& node) { product(node, at(node.in[0]), at(node.in[1]), c_.head_dim); }

  // [rows, V] -> [1, rows, V]
  void logits() {
    const OnnxTensor x = at(g_.nodes.back().out);
    out_.output(out_.reshape(x, o_.names.logits, {1, x.shape[0], x.shape[1]}));
  }

  const int64_t past_;
  std::string ids_, positions_;
  OnnxTensor mask_;
  std::map<int, OnnxTensor> tables_;  // cos and sin, by site
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
  return {"attention_mask",   "position_ids",    "logits",           "past_key_{}_in",
          "past_value_{}_in", "past_key_{}_out", "past_value_{}_out"};
}

DecoderNames ort_genai_names() {
  return {"npu_mask",          "npu_positions",    "npu_logits",        "past_keys_{}_in",
          "past_values_{}_in", "past_keys_{}_out", "past_values_{}_out"};
}

DecoderModel make_decoder(const Artifact& artifact, const DecoderOptions& options,
                          WeightFile& weights) {
  DecoderModel model = DecoderWriter(artifact, options, weights).write();
  check_laws(artifact);
  return model;
}

}  // namespace qnpu
