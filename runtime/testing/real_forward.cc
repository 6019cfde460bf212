#include "runtime/testing/real_forward.h"

#include <algorithm>
#include <cmath>

namespace qnpu::testing {
namespace {

using Matrix = std::vector<double>;

class Walk {
 public:
  Walk(const RealModel& model, std::span<const int32_t> tokens)
      : model_(model),
        graph_(model.graph),
        tokens_(tokens),
        rows_(tokens.size()),
        prefix_(static_cast<size_t>(graph_.prefix_length())),
        positions_(prefix_ + rows_) {}

  Matrix node(const Node& node, const RealValues& values) {
    const auto in = [&](size_t i) -> const Matrix& {
      return values[static_cast<size_t>(node.in[i])];
    };
    switch (node.op) {
      case Op::kEmbedding:
        return embedding(node);
      case Op::kRmsNorm:
        return rms_norm(node, in(0));
      case Op::kLinear:
        return linear(node, in(0));
      case Op::kRotateHalf:
        return rotate_half(node, in(0));
      case Op::kRopeMul:
        return rope_mul(node, in(0));
      case Op::kAdd:
        return combine(in(0), in(1), [](double a, double b) { return a + b; });
      case Op::kMul:
        return combine(in(0), in(1), [](double a, double b) { return a * b; });
      case Op::kSilu:
        return combine(in(0), in(0), [](double a, double) { return a / (1.0 + std::exp(-a)); });
      case Op::kScores:
        return scores(in(0), in(1));
      case Op::kSoftmax:
        return softmax(in(0));
      case Op::kContext:
        return context(in(0), in(1));
      case Op::kAppend:
        return append(node, in(0));
      case Op::kConvert:
      case Op::kMask:
        return in(0);
    }
    return {};
  }

 private:
  const Matrix& constant(int site) const { return model_.tensors.at(graph_.site(site).name); }
  size_t cols(int site) const { return static_cast<size_t>(graph_.site(site).cols); }

  static Matrix combine(const Matrix& a, const Matrix& b, double (*f)(double, double)) {
    Matrix y(a.size());
    for (size_t i = 0; i < a.size(); ++i) y[i] = f(a[i], b[i]);
    return y;
  }

  Matrix embedding(const Node& node) const {
    const size_t d = cols(node.out);
    Matrix y;
    for (const int32_t token : tokens_) {
      const auto row = constant(node.weight).begin() + static_cast<std::ptrdiff_t>(token * d);
      y.insert(y.end(), row, row + static_cast<std::ptrdiff_t>(d));
    }
    return y;
  }

  Matrix rms_norm(const Node& node, const Matrix& x) const {
    const Matrix& gamma = constant(node.weight);
    const size_t d = gamma.size();
    Matrix y(x.size());
    for (size_t r = 0; r < x.size(); r += d) {
      double sum = 0.0;
      for (size_t i = 0; i < d; ++i) sum += x[r + i] * x[r + i];
      const double norm = std::sqrt(sum / static_cast<double>(d) + graph_.config.rms_norm_eps);
      for (size_t i = 0; i < d; ++i) y[r + i] = x[r + i] * gamma[i] / norm;
    }
    return y;
  }

  Matrix linear(const Node& node, const Matrix& x) const {
    const Matrix& w = constant(node.weight);
    const size_t k = cols(node.weight);
    const size_t n = w.size() / k;
    Matrix y(rows_ * n);
    for (size_t t = 0; t < rows_; ++t) {
      for (size_t c = 0; c < n; ++c) {
        double sum = node.bias ? model_.tensors.at(node.name + ".bias")[c] : 0.0;
        for (size_t i = 0; i < k; ++i) sum += x[t * k + i] * w[c * k + i];
        y[t * n + c] = sum;
      }
    }
    return y;
  }

  Matrix rotate_half(const Node& node, const Matrix& x) const {
    const size_t hd = cols(node.out) / static_cast<size_t>(node.heads);
    Matrix y(x.size());
    for (size_t h = 0; h < x.size(); h += hd) {
      for (size_t i = 0; i < hd / 2; ++i) {
        y[h + i] = -x[h + hd / 2 + i];
        y[h + hd / 2 + i] = x[h + i];
      }
    }
    return y;
  }

  Matrix rope_mul(const Node& node, const Matrix& x) const {
    const Matrix& table = constant(node.weight);
    const size_t width = cols(node.out);
    const size_t hd = width / static_cast<size_t>(node.heads);
    Matrix y(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      y[i] = x[i] * table[(prefix_ + i / width) * (hd / 2) + i % hd % (hd / 2)];
    }
    return y;
  }

  Matrix append(const Node& node, const Matrix& rows) const {
    Matrix y;
    if (prefix_ > 0) y = model_.tensors.at(graph_.site(node.out).name + ".prefix");
    y.insert(y.end(), rows.begin(), rows.end());
    return y;
  }

  // f(head, row, position) for every visible position.
  template <typename F>
  void for_visible(F f) const {
    for (size_t h = 0; h < static_cast<size_t>(graph_.config.num_heads); ++h) {
      for (size_t t = 0; t < rows_; ++t) {
        for (size_t p = 0; p <= prefix_ + t; ++p) f(h, t, p);
      }
    }
  }
  size_t at(size_t h, size_t t, size_t p) const { return (h * rows_ + t) * positions_ + p; }
  size_t kv_head(size_t h) const {
    return h / static_cast<size_t>(graph_.config.num_heads / graph_.config.num_kv_heads);
  }

  Matrix scores(const Matrix& q, const Matrix& k) const {
    const auto hd = static_cast<size_t>(graph_.config.head_dim);
    const size_t q_cols = q.size() / rows_;
    const size_t k_cols = k.size() / positions_;
    Matrix y(static_cast<size_t>(graph_.config.num_heads) * rows_ * positions_);
    for_visible([&](size_t h, size_t t, size_t p) {
      double sum = 0.0;
      for (size_t i = 0; i < hd; ++i) {
        sum += q[t * q_cols + h * hd + i] * k[p * k_cols + kv_head(h) * hd + i];
      }
      y[at(h, t, p)] = sum / std::sqrt(static_cast<double>(hd));
    });
    return y;
  }

  Matrix softmax(const Matrix& x) const {
    Matrix y(x.size());
    Matrix sums(x.size() / positions_);
    for_visible(
        [&](size_t h, size_t t, size_t p) { sums[h * rows_ + t] += std::exp(x[at(h, t, p)]); });
    for_visible([&](size_t h, size_t t, size_t p) {
      y[at(h, t, p)] = std::exp(x[at(h, t, p)]) / sums[h * rows_ + t];
    });
    return y;
  }

  Matrix context(const Matrix& probabilities, const Matrix& v) const {
    const auto hd = static_cast<size_t>(graph_.config.head_dim);
    const size_t width = static_cast<size_t>(graph_.config.num_heads) * hd;
    const size_t v_cols = v.size() / positions_;
    Matrix y(rows_ * width);
    for_visible([&](size_t h, size_t t, size_t p) {
      for (size_t i = 0; i < hd; ++i) {
        y[t * width + h * hd + i] +=
            probabilities[at(h, t, p)] * v[p * v_cols + kv_head(h) * hd + i];
      }
    });
    return y;
  }

  const RealModel& model_;
  const Graph& graph_;
  std::span<const int32_t> tokens_;
  size_t rows_;       // T
  size_t prefix_;     // P
  size_t positions_;  // P + T
};

void round_to_grid(const QParams& params, Matrix& values) {
  const auto [qmin, qmax] = integer_range(params.dtype);
  const double scale = params.scale.at(0);
  const int32_t zero = params.zero_point.empty() ? 0 : params.zero_point[0];
  for (double& v : values) {
    const double q = std::floor(v / scale + 0.5) + zero;
    v = (std::clamp<double>(q, qmin, qmax) - zero) * scale;
  }
}

template <typename T>
Matrix scaled(const TensorView& tensor, double scale) {
  Matrix y;
  for (const T q : tensor.as<T>()) y.push_back(scale * static_cast<double>(q));
  return y;
}

// Weights per channel; biases, which are stored on the accumulator's grid, beside them.
void dequantize_linear(const Artifact& artifact, const Node& node, RealModel& model) {
  const Site& site = artifact.graph.site(node.weight);
  const TensorView& weight = artifact.tensors.at(site.name);
  const auto scales = artifact.tensors.at(site.name + ".scale").as<float>();
  Matrix w;
  if (site.qparams.dtype == DType::kS4) {
    for (const uint8_t pair : weight.as<uint8_t>()) {
      w.push_back(static_cast<int8_t>(pair << 4) >> 4);
      w.push_back(static_cast<int8_t>(pair) >> 4);
    }
  } else {
    w = scaled<int8_t>(weight, 1.0);
  }
  for (size_t i = 0; i < w.size(); ++i) w[i] *= scales[i / static_cast<size_t>(site.cols)];
  model.tensors[site.name] = std::move(w);
  if (!node.bias) return;
  const Site& x = artifact.graph.site(node.in[0]);
  const double unit = x.qparams.scale.at(0) * (bitwidth(x.qparams.dtype) == 16 ? 256.0 : 1.0);
  Matrix bias = scaled<int32_t>(artifact.tensors.at(node.name + ".bias"), unit);
  for (size_t i = 0; i < bias.size(); ++i) bias[i] *= scales[i];
  model.tensors[node.name + ".bias"] = std::move(bias);
}

}  // namespace

RealModel dequantize(const Artifact& artifact) {
  RealModel model{artifact.graph, {}};
  for (const Node& node : artifact.graph.nodes) {
    if (node.op == Op::kLinear) {
      dequantize_linear(artifact, node, model);
    } else if (node.weight >= 0) {
      const Site& site = artifact.graph.site(node.weight);
      model.tensors[site.name] =
          scaled<int16_t>(artifact.tensors.at(site.name), site.qparams.scale.at(0));
    } else if (node.op == Op::kAppend && artifact.graph.prefix_length() > 0) {
      const Site& cache = artifact.graph.site(node.out);
      const std::string name = cache.name + ".prefix";
      model.tensors[name] = scaled<int8_t>(artifact.tensors.at(name), cache.qparams.scale.at(0));
    }
  }
  return model;
}

RealValues real_forward(const RealModel& model, std::span<const int32_t> tokens, bool round_sites) {
  RealValues values(model.graph.sites.size());
  Walk walk(model, tokens);
  for (const Node& node : model.graph.nodes) {
    Matrix& out = values[static_cast<size_t>(node.out)];
    out = walk.node(node, values);
    if (round_sites) round_to_grid(model.graph.site(node.out).qparams, out);
  }
  return values;
}

std::vector<double> real_node(const RealModel& model, std::span<const int32_t> tokens,
                              const Node& node, const RealValues& values) {
  return Walk(model, tokens).node(node, values);
}

double sqnr(std::span<const double> wanted, std::span<const double> got) {
  double signal = 0.0;
  double noise = 0.0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    signal += wanted[i] * wanted[i];
    noise += (got[i] - wanted[i]) * (got[i] - wanted[i]);
  }
  return noise == 0.0 ? 200.0 : 10.0 * std::log10(signal / noise);
}

}  // namespace qnpu::testing
