#include "export/decoder.h"

#include <fmt/format.h>

#include "base/status.h"
#include "export/decoder_attention.h"
#include "export/linear.h"
#include "model/laws.h"

namespace qnpu {
namespace {

class DecoderWriter : DecoderAttention {
 public:
  DecoderWriter(const Artifact& artifact, const DecoderOptions& options, WeightFile& weights)
      : DecoderAttention(artifact, options, weights) {}

  DecoderModel write() {
    inputs();
    for (const Node& node : g_.nodes) {
      if (is_in(o_.part, g_, node)) add(node);
    }
    outputs();
    DecoderModel result{out_.model(), {}, out_.encodings()};
    for (const auto& [site, placed] : placed_) {
      result.sites[g_.site(site).name] = {placed.tensor.name, placed.tensor.shape};
    }
    return result;
  }

 private:
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
    const OnnxTensor x = gather(table(node.weight), ids(), name + ".gathered");
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
    store(node, write_linear(out_, weights_, a_, node, x), {x.shape[0], g_.site(node.weight).rows},
          Layout::kRows);
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

  // The residual stream, or logits [rows, V] -> [1, rows, V].
  void outputs() {
    if (!o_.part.last()) {
      const int site = residual_into({o_.part.index + 1, o_.part.count}, g_);
      if (!o_.trace) out_.output(at(site));
      return;
    }
    const OnnxTensor x = at(g_.nodes.back().out);
    out_.output(out_.reshape(x, o_.names.logits, {1, x.shape[0], x.shape[1]}));
  }
};

}  // namespace

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
