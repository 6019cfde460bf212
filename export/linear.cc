#include "export/linear.h"

#include <algorithm>
#include <cstdlib>

#include "base/status.h"

namespace qnpu {
namespace {

constexpr int kLargestMultiplier = 16, kLargestNibble = 7;

template <typename T>
std::vector<std::byte> to_bytes(const std::vector<T>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

// The largest one, so that the integers are small; 0 if there is none.
int multiplier_of(std::span<const int8_t> products) {
  for (int m = kLargestMultiplier; m > 0; --m) {
    if (std::all_of(products.begin(), products.end(),
                    [m](int8_t p) { return p % m == 0 && std::abs(p / m) <= kLargestNibble; })) {
      return m;
    }
  }
  return 0;
}

class LinearWriter {
 public:
  LinearWriter(OnnxGraph& graph, WeightFile& weights, const Artifact& artifact, const Node& node)
      : out_(graph),
        weights_(weights),
        a_(artifact),
        node_(node),
        site_(artifact.graph.site(node.weight)),
        scales_(artifact.tensors.at(site_.name + ".scale").as<float>()) {}

  std::string per_channel(const OnnxTensor& x) {
    const TensorView& view = a_.tensors.at(site_.name);
    const bool nibbles = site_.qparams.dtype == DType::kS4;
    std::vector<std::string> inputs = {
        out_.real(x), out_.real_weight(site_.name, nibbles ? OnnxType::kS4 : OnnxType::kS8,
                                       {site_.rows, site_.cols}, {view.data, view.bytes}, scales_)};
    if (node_.bias) inputs.push_back(bias(x.quantized));
    return out_.op("Gemm", node_.name, inputs, {{"transB", int64_t{1}}});
  }

  std::string in_blocks(const OnnxTensor& x) {
    const std::string multipliers = site_.name + ".block_scale";
    if (!weights_.contains(site_.name)) {
      BlockWeights split = split_products(a_.tensors.at(site_.name).as<int8_t>(), site_.rows,
                                          site_.cols, site_.spec.block_size, site_.name);
      weights_.add(site_.name, std::move(split.q));
      weights_.add(multipliers, std::move(split.multiplier));
    }
    const std::string weight =
        out_.real_block_weight(site_.name, {site_.cols, site_.rows}, weights_.view(site_.name),
                               weights_.view(multipliers), site_.spec.block_size, scales_);
    return out_.op("MatMul", node_.name, {out_.real(x), weight});
  }

 private:
  // Of a 16-bit linear the artifact has it divided by 256, as the compiler will divide it: in
  // single precision, cut towards zero, so that a number at the edge of 256 would often come out
  // one nearer to zero. It gets one in the middle.
  std::string bias(const Quantized& x) {
    const std::string name = node_.name + ".bias";
    const auto stored = a_.tensors.at(name).as<int32_t>();
    const bool wide = x.type == OnnxType::kU16;
    if (!weights_.contains(name)) {
      std::vector<int32_t> values;
      std::vector<float> scales;
      for (const int32_t b : stored) {
        values.push_back(wide ? 256 * b + 128 * ((b > 0) - (b < 0)) : b);
      }
      for (const float s : scales_) scales.push_back(x.scale * s);
      weights_.add(name, to_bytes(values));
      weights_.add(name + ".scale", to_bytes(scales));
    }
    const auto scales = weights_.view(name + ".scale");
    return out_.real_weight(name, OnnxType::kS32, {std::ssize(stored)}, weights_.view(name),
                            {reinterpret_cast<const float*>(scales.data()), stored.size()});
  }

  OnnxGraph& out_;
  WeightFile& weights_;
  const Artifact& a_;
  const Node& node_;
  const Site& site_;
  const std::span<const float> scales_;
};

}  // namespace

BlockWeights split_products(std::span<const int8_t> products, int64_t n, int64_t k, int64_t block,
                            const std::string& name) {
  BlockWeights result{std::vector<std::byte>(static_cast<size_t>((n * k + 1) / 2)),
                      std::vector<std::byte>(static_cast<size_t>(n * (k / block)))};
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t b = 0; b < k / block; ++b) {
      const auto part =
          products.subspan(static_cast<size_t>(row * k + b * block), static_cast<size_t>(block));
      const int m = multiplier_of(part);
      if (m == 0) fail("'{}' is no product of 4-bit integers; quantize the model again", name);
      result.multiplier[static_cast<size_t>(b * n + row)] = static_cast<std::byte>(m);
      for (int64_t i = 0; i < block; ++i) {
        const auto at = static_cast<size_t>((b * block + i) * n + row);
        const int nibble = (part[static_cast<size_t>(i)] / m) & 15;
        result.q[at / 2] |= static_cast<std::byte>(nibble << (4 * (at % 2)));
      }
    }
  }
  return result;
}

// Tools that read the graph in float get the products, as weights of 8 bits; and so does the
// compiler where there is a bias: it takes no sum of a product in blocks and a bias, other than in
// float.
std::string write_linear(OnnxGraph& graph, WeightFile& weights, const Artifact& artifact,
                         const Node& node, const OnnxTensor& x) {
  LinearWriter writer(graph, weights, artifact, node);
  const bool blocks = artifact.graph.site(node.weight).spec.block_size > 0 && !node.bias;
  return blocks && graph.form() == Form::kQdq ? writer.in_blocks(x) : writer.per_channel(x);
}

}  // namespace qnpu
