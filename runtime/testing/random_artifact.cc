#include "runtime/testing/random_artifact.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <random>

#include "base/status.h"
#include "runtime/testing/real_forward.h"

namespace qnpu::testing {
namespace {

constexpr int kCalibrationTokens = 64;

class Maker {
 public:
  Maker(const ModelConfig& config, const Recipe& recipe, uint64_t seed, int positions, int prefix)
      : recipe_(recipe), random_(seed), positions_(positions), prefix_(prefix) {
    model_.graph = build_graph(config, recipe);
  }

  void write(const std::filesystem::path& folder) {
    for (const Node& node : graph().nodes) make_constants(node);
    make_prefix();
    calibrate();
    for (Node& node : graph().nodes) make_law(node);
    for (const Node& node : graph().nodes) add_prefix(node);
    std::filesystem::create_directories(folder);
    write_artifact(folder, graph(), tensors_, positions_, {{"recipe", to_json(recipe_)}});
  }

 private:
  Graph& graph() { return model_.graph; }
  Site& site(int index) { return graph().sites[static_cast<size_t>(index)]; }
  double scale(int index) { return site(index).qparams.scale.at(0); }

  double uniform(double low, double high) {
    return low + (high - low) * static_cast<double>(random_() >> 11) * 0x1p-53;
  }
  int integer(int low, int high) { return static_cast<int>(std::floor(uniform(low, high + 1))); }

  template <typename T>
  void add_tensor(const std::string& name, const std::string& dtype, std::vector<int64_t> shape,
                  const std::vector<T>& data) {
    const auto* bytes = reinterpret_cast<const std::byte*>(data.data());
    storage_.emplace_back(bytes, bytes + data.size() * sizeof(T));
    tensors_.push_back({name, dtype, std::move(shape), storage_.back()});
  }

  void set_scale(Site& s, double scale, int32_t zero_point = 0) {
    s.qparams.scale = {static_cast<float>(scale)};
    s.qparams.zero_point = {zero_point};
  }

  // ---- Constants ----

  void make_constants(const Node& node) {
    if (node.op == Op::kLinear) {
      make_weight(node);
    } else if (node.weight >= 0 && model_.tensors.count(site(node.weight).name) == 0) {
      make_table(node);
    }
  }

  // Integers as they will be stored; outputs about as large as inputs.
  void make_weight(const Node& node) {
    const Site& w = site(node.weight);
    const int qmax = w.qparams.dtype == DType::kS4 ? 7 : 127;
    std::vector<int>& q = weights_[node.name];
    std::vector<double>& scales = weight_scales_[node.name];
    std::vector<double>& real = model_.tensors[w.name];
    for (int n = 0; n < w.rows; ++n) {
      scales.push_back(uniform(1.2, 3.0) / (qmax * std::sqrt(static_cast<double>(w.cols))));
      for (int k = 0; k < w.cols; ++k) {
        q.push_back(integer(-qmax, qmax));
        real.push_back(q.back() * scales.back());
      }
    }
    if (!node.bias) return;
    for (int n = 0; n < w.rows; ++n) {
      model_.tensors[node.name + ".bias"].push_back(uniform(-1.0, 1.0));
    }
  }

  void make_table(const Node& node) {
    Site& table = site(node.weight);
    std::vector<int16_t> q;
    if (node.op == Op::kRopeMul) {
      table.rows = positions_;
      q = rope_table(table.name == "rope.cos");
      set_scale(table, 1.0 / 32767);
    } else {
      const bool gamma = node.op == Op::kRmsNorm;
      for (int i = 0; i < table.rows * table.cols; ++i) {
        q.push_back(static_cast<int16_t>(gamma ? integer(8000, 32767) : integer(-32767, 32767)));
      }
      set_scale(table, (gamma ? 1.5 : 1.0) / 32767);
    }
    std::vector<double>& real = model_.tensors[table.name];
    for (const int16_t v : q) real.push_back(v * static_cast<double>(table.qparams.scale[0]));
    std::vector<int64_t> shape = {table.rows, table.cols};
    if (node.op == Op::kRmsNorm) shape = {table.cols};
    add_tensor(table.name, "I16", shape, q);
  }

  std::vector<int16_t> rope_table(bool cosine) {
    std::vector<int16_t> q;
    for (int p = 0; p < positions_; ++p) {
      for (const double f : rope_inverse_frequencies(graph().config)) {
        const double v = cosine ? std::cos(p * f) : std::sin(p * f);
        q.push_back(static_cast<int16_t>(std::floor(v * 32767 + 0.5)));
      }
    }
    return q;
  }

  // ---- Prefix ----

  std::vector<int32_t> random_tokens(int count) {
    std::vector<int32_t> tokens;
    for (int i = 0; i < count; ++i) tokens.push_back(integer(0, graph().config.vocab_size - 1));
    return tokens;
  }

  // What the prefix tokens alone leave in the caches.
  void make_prefix() {
    if (prefix_ == 0) return;
    const std::vector<int32_t> tokens = random_tokens(prefix_);
    RealValues values = real_forward(model_, tokens, /*round_sites=*/false);
    for (const Node& node : graph().nodes) {
      if (node.op != Op::kAppend) continue;
      model_.tensors[site(node.out).name + ".prefix"] = values[static_cast<size_t>(node.out)];
    }
    graph().prefix_tokens = tokens;
  }

  void add_prefix(const Node& node) {
    if (prefix_ == 0 || node.op != Op::kAppend) return;
    const std::string name = site(node.out).name + ".prefix";
    std::vector<int8_t> q;
    for (const double v : model_.tensors.at(name)) {
      q.push_back(
          static_cast<int8_t>(std::clamp(std::floor(v / scale(node.out) + 0.5), -128.0, 127.0)));
    }
    add_tensor(name, "I8", {prefix_, site(node.out).cols}, q);
  }

  // ---- Ranges ----

  void calibrate() {
    const std::vector<int32_t> tokens = random_tokens(kCalibrationTokens);
    const RealValues values = real_forward(model_, tokens, /*round_sites=*/false);
    for (const Node& node : graph().nodes) {
      const auto& v = values[static_cast<size_t>(node.out)];
      const auto [low, high] = std::minmax_element(v.begin(), v.end());
      set_range(site(node.out), *low, *high);
    }
    follow_ties();
    for (const Node& node : graph().nodes) snap_product(node);
    follow_ties();
  }

  void follow_ties() {
    for (const Node& node : graph().nodes) {
      if (site(node.out).source != RangeSource::kTied) continue;
      const TieRoot root = tie_root(graph(), node.out);
      set_scale(site(node.out), root.ratio * scale(root.site));
    }
  }

  // Moves the output scale of scores and context to where the multiplier has 12 significant bits.
  void snap_product(const Node& node) {
    if (node.op != Op::kScores && node.op != Op::kContext) return;
    const double unit = accumulator_unit(node);
    const TieRoot root = tie_root(graph(), node.out);
    set_scale(site(root.site), unit / snap_multiplier(unit / scale(node.out)) / root.ratio);
  }

  double accumulator_unit(const Node& node) {
    const double unit = scale(node.in[0]) * scale(node.in[1]);
    return node.op == Op::kScores ? unit / std::sqrt(graph().config.head_dim) : unit;
  }

  static void set_range(Site& s, double low, double high) {
    const auto [qmin, qmax] = integer_range(s.qparams.dtype);
    double step = std::max(-low, high) / qmax;
    int32_t zero = 0;
    if (s.source == RangeSource::kFixed) {
      step = 1.0 / 65535;
    } else if (s.source == RangeSource::kMask || !s.spec.symmetric) {
      if (s.source == RangeSource::kMask) low -= 20.0;
      low = std::min(low, 0.0);
      step = (high - low) / (qmax - qmin);
      zero = qmin - static_cast<int32_t>(std::floor(low / step + 0.5));
    }
    s.qparams.scale = {static_cast<float>(step)};
    s.qparams.zero_point = {zero};
  }

  // ---- Laws ----

  void make_law(Node& node) {
    const double out = scale(node.out);
    const double a = node.in.empty() ? 0.0 : scale(node.in[0]);
    const bool wide = bitwidth(site(node.out).qparams.dtype) == 16;
    switch (node.op) {
      case Op::kLinear:
        make_linear(node, wide);
        break;
      case Op::kRmsNorm:
        node.law = make_rmsnorm(a, scale(node.weight), out, graph().config.rms_norm_eps,
                                site(node.weight).cols);
        break;
      case Op::kRopeMul:
        node.law = make_mul16(a, scale(node.weight), out);
        break;
      case Op::kMul:
        node.law = (wide ? make_mul16 : make_mul8)(a, scale(node.in[1]), out);
        break;
      case Op::kAdd:
        node.law = make_add16(a, scale(node.in[1]), out);
        break;
      case Op::kMask:
        node.law = make_add16(a, 100.0 / 65535, out);
        break;
      case Op::kScores:
      case Op::kContext:
        node.law = make_requant16(snap_multiplier(accumulator_unit(node) / out));
        break;
      case Op::kSilu:
        add_silu(node);
        break;
      case Op::kSoftmax:
        add_exp_tables(node, a);
        break;
      default:
        break;
    }
  }

  void add_silu(const Node& node) {
    const int bits = bitwidth(site(node.in[0]).qparams.dtype);
    const auto table = make_silu_table(bits, scale(node.in[0]), scale(node.out),
                                       site(node.out).qparams.zero_point[0]);
    add_tensor(node.name + ".table", "I16", {static_cast<int64_t>(table.size())}, table);
  }

  void add_exp_tables(const Node& node, double x_scale) {
    const ExpTables tables = make_exp_tables(x_scale);
    add_tensor(node.name + ".exp_high", "U32", {256}, tables.high);
    add_tensor(node.name + ".exp_low", "U32", {256}, tables.low);
  }

  // The weight scale is moved to where the multiplier has 12 significant bits.
  void make_linear(const Node& node, bool wide) {
    const Site& w = site(node.weight);
    const double x_scale = scale(node.in[0]);
    std::vector<float> scales;
    std::vector<int32_t> row_sum, multiplier, shift, bias;
    const std::vector<int>& q = weights_.at(node.name);
    for (int n = 0; n < w.rows; ++n) {
      const double m = snap_multiplier(x_scale * weight_scales_.at(node.name)[n] / scale(node.out));
      const double w_scale = m * scale(node.out) / x_scale;
      const Requant law = wide ? make_requant16(m) : make_requant8(m);
      scales.push_back(static_cast<float>(w_scale));
      multiplier.push_back(law.mantissa);
      shift.push_back(law.shift);
      const auto row = q.begin() + static_cast<std::ptrdiff_t>(n) * w.cols;
      int32_t sum = 0;
      for (int k = 0; k < w.cols; ++k) sum += row[k];
      row_sum.push_back(sum);
      if (!node.bias) continue;
      const double real = model_.tensors.at(node.name + ".bias")[n];
      const auto stored = static_cast<int64_t>(std::floor(real / (x_scale * w_scale) + 0.5));
      bias.push_back(wide ? bias16(stored) : static_cast<int32_t>(stored));
    }
    add_weight(node, q);
    add_tensor(w.name + ".scale", "F32", {w.rows}, scales);
    add_tensor(node.name + ".row_sum", "I32", {w.rows}, row_sum);
    add_tensor(node.name + ".multiplier", "I32", {w.rows}, multiplier);
    add_tensor(node.name + ".shift", "I32", {w.rows}, shift);
    if (node.bias) add_tensor(node.name + ".bias", "I32", {w.rows}, bias);
  }

  void add_weight(const Node& node, const std::vector<int>& q) {
    const Site& w = site(node.weight);
    if (w.qparams.dtype == DType::kS8) {
      add_tensor(w.name, "I8", {w.rows, w.cols}, std::vector<int8_t>(q.begin(), q.end()));
      return;
    }
    std::vector<uint8_t> packed;
    for (size_t i = 0; i < q.size(); i += 2) {
      packed.push_back(static_cast<uint8_t>((q[i] & 15) | (q[i + 1] & 15) << 4));
    }
    add_tensor(w.name, "U8", {w.rows, w.cols / 2}, packed);
  }

  const Recipe& recipe_;
  std::mt19937_64 random_;
  int positions_;
  int prefix_;
  RealModel model_;
  std::map<std::string, std::vector<int>> weights_;           // by node
  std::map<std::string, std::vector<double>> weight_scales_;  // by node, before snapping
  std::deque<std::vector<std::byte>> storage_;
  std::vector<TensorToWrite> tensors_;
};

}  // namespace

ModelConfig tiny_config(const std::string& architecture, const TinyShape& shape) {
  ModelConfig config;
  config.architecture = architecture;
  config.vocab_size = shape.vocab_size;
  config.hidden_size = shape.hidden_size;
  config.intermediate_size = shape.intermediate_size;
  config.intermediate_sizes = shape.intermediate_sizes;
  config.num_layers = shape.num_layers;
  config.num_heads = shape.num_heads;
  config.num_kv_heads = shape.num_kv_heads;
  config.head_dim = shape.head_dim;
  config.max_positions = 512;
  config.qkv_bias = architecture == "qwen2";
  config.qk_norm = architecture == "qwen3";
  return config;
}

void make_random_artifact(const ModelConfig& config, const Recipe& recipe, uint64_t seed,
                          const std::filesystem::path& folder, int positions, int prefix) {
  Maker(config, recipe, seed, positions, prefix).write(folder);
}

}  // namespace qnpu::testing
