#include "export/decoder_sites.h"

#include <algorithm>

#include "base/status.h"

namespace qnpu {
namespace {

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

}  // namespace

DecoderSites::DecoderSites(const Artifact& artifact, const DecoderOptions& options,
                           WeightFile& weights)
    : a_(artifact),
      g_(artifact.graph),
      c_(artifact.graph.config),
      o_(options),
      weights_(weights),
      out_("decoder", weights, options.form),
      rows_(options.rows) {}

OnnxTensor DecoderSites::owned(const std::string& name, const Shape& shape,
                               std::vector<std::byte> data, const Quantized& q) {
  weights_.add(name, std::move(data));
  return out_.table(name, shape, weights_.view(name), q);
}

OnnxTensor DecoderSites::table(int site, int64_t first) {
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

OnnxTensor DecoderSites::gather(const OnnxTensor& from, const std::string& indices,
                                const std::string& name) {
  const std::string edge = out_.op("Gather", name + "/gather", {out_.real(from), indices});
  return out_.stored(edge, name, {1, rows_, from.shape.back()}, from.quantized);
}

void DecoderSites::place(int site, OnnxTensor tensor, Layout layout) {
  if (o_.trace) out_.output(tensor);
  placed_[site] = {std::move(tensor), layout};
}

void DecoderSites::store(const Node& node, const std::string& edge, const Shape& shape,
                         Layout layout) {
  const Site& site = g_.site(node.out);
  const bool last = node.out == g_.nodes.back().out;  // the output has the name of its site
  const std::string name = last ? site.name + ".rows" : site.name;
  place(node.out, out_.stored(edge, name, shape, stored_as(site)), layout);
}

OnnxTensor DecoderSites::rows(int site) {
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

OnnxTensor DecoderSites::heads(int site) {
  const Placed& x = placed_.at(site);
  if (x.layout == Layout::kHeads) return x.tensor;
  const auto found = by_heads_.find(site);
  if (found != by_heads_.end()) return found->second;
  return by_heads_[site] = out_.reshape(x.tensor, g_.site(site).name + ".heads",
                                        {1, rows_, heads_of(site), c_.head_dim});
}

OnnxTensor DecoderSites::groups(int site) {
  const Shape shape = {c_.num_kv_heads, 1, c_.num_heads / c_.num_kv_heads * rows_, c_.head_dim};
  const std::string& name = g_.site(site).name;
  OnnxTensor x = heads(site);
  if (rows_ > 1) x = out_.transpose(x, name + ".by_head", {0, 2, 1, 3});
  return out_.reshape(x, name + ".groups", shape);
}

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

}  // namespace qnpu
