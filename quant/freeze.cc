#include "quant/freeze.h"

#include <algorithm>
#include <cmath>
#include <list>
#include <nlohmann/json.hpp>
#include <set>

#include "base/status.h"
#include "model/artifact.h"
#include "model/laws.h"
#include "quant/block_weights.h"
#include "quant/freeze_laws.h"
#include "quant/freeze_linear.h"
#include "quant/observer.h"
#include "quant/ranges.h"
#include "quant/spill.h"
#include "quant/weights.h"

namespace qnpu {
namespace {

// The tensors of the artifact with the memory that they are written from.
class TensorStore {
 public:
  template <typename T>
  void add(const std::string& name, const char* dtype, std::vector<int64_t> shape,
           const std::vector<T>& values) {
    const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
    memory_.emplace_back(bytes, bytes + values.size() * sizeof(T));
    tensors_.push_back({name, dtype, std::move(shape), memory_.back()});
  }
  const std::vector<TensorToWrite>& tensors() const { return tensors_; }

 private:
  std::list<std::vector<std::byte>> memory_;
  std::vector<TensorToWrite> tensors_;
};

class Freezer {
 public:
  Freezer(const FloatModel& model, Graph& graph, const FreezeOptions& options)
      : model_(model),
        graph_(graph),
        options_(options),
        positions_(std::min(model.config.max_positions, options.max_positions)) {}

  WeightReports run(const std::filesystem::path& folder, const nlohmann::json& manifest) {
    graph_.prefix_tokens = model_.prefix.tokens;
    choose_table_scales();
    apply_ties(graph_);
    snap_sums(graph_);
    snap_attention_products(graph_);
    set_laws(graph_);
    int done = 0;
    for (const Node& node : graph_.nodes) {
      write_node(node);
      if (options_.progress) options_.progress(++done, static_cast<int>(graph_.nodes.size()));
    }
    write_artifact(folder, graph_, store_.tensors(), positions_, manifest);
    return std::move(reports_);
  }

 private:
  Site& site(int index) { return graph_.sites[static_cast<size_t>(index)]; }

  const torch::Tensor& weight(const std::string& name) const {
    const auto found = model_.weights.find(name);
    if (found == model_.weights.end()) fail("the float model has no tensor '{}'", name);
    QNPU_ASSERT(found->second.is_contiguous() && found->second.scalar_type() == torch::kFloat32);
    return found->second;
  }

  // Embedding and norm weights: 16 bits, symmetric, one scale each.
  void choose_table_scales() {
    for (Site& s : graph_.sites) {
      if (s.role != Role::kTable || s.source != RangeSource::kObserved) continue;
      const double largest = weight(s.name).abs().max().item<float>();
      s.qparams = qparams_of({-largest, largest}, /*symmetric=*/true, s.qparams.dtype);
      release_pages(weight(s.name));
    }
  }

  void write_node(const Node& node) {
    switch (node.op) {
      case Op::kEmbedding:
      case Op::kRmsNorm:
        write_table(graph_.site(node.weight));
        break;
      case Op::kRopeMul:
        write_rope(graph_.site(node.weight).name);
        break;
      case Op::kLinear:
        write_linear(node);
        break;
      case Op::kSilu:
        write_silu(node);
        break;
      case Op::kSoftmax: {
        const ExpTables tables = make_exp_tables(scale_of(graph_, node.in[0]));
        store_.add(node.name + ".exp_high", "U32", {256}, tables.high);
        store_.add(node.name + ".exp_low", "U32", {256}, tables.low);
        break;
      }
      case Op::kAppend:
        if (graph_.prefix_length() > 0) write_prefix(graph_.site(node.out));
        break;
      default:
        break;
    }
  }

  // fp32 -> s8 with the cache's scale, halves up: [P, cols].
  void write_prefix(const Site& cache) {
    const auto found = model_.prefix.rows.find(cache.name);
    if (found == model_.prefix.rows.end()) fail("the prefix has no rows for '{}'", cache.name);
    const torch::Tensor rows = found->second.contiguous();
    const float* from = rows.data_ptr<float>();
    const double scale = cache.qparams.scale[0];
    std::vector<int8_t> q(static_cast<size_t>(rows.numel()));
    for (size_t i = 0; i < q.size(); ++i) {
      q[i] = static_cast<int8_t>(std::clamp(std::floor(from[i] / scale + 0.5), -128.0, 127.0));
    }
    store_.add(cache.name + ".prefix", "I8", rows.sizes().vec(), q);
  }

  // fp32 -> s16, halves up.
  void write_table(const Site& table) {
    if (!written_.insert(table.name).second) return;
    const torch::Tensor& values = weight(table.name);
    const float* from = values.data_ptr<float>();
    const double scale = table.qparams.scale[0];
    std::vector<int16_t> q(static_cast<size_t>(values.numel()));
    double signal = 0.0;
    double noise = 0.0;
    for (size_t i = 0; i < q.size(); ++i) {
      q[i] = static_cast<int16_t>(std::clamp(std::floor(from[i] / scale + 0.5), -32767.0, 32767.0));
      signal += static_cast<double>(from[i]) * from[i];
      noise += (from[i] - scale * q[i]) * (from[i] - scale * q[i]);
    }
    reports_[table.name] = {16, 0, power_ratio_db(signal, noise)};
    store_.add(table.name, "I16", values.sizes().vec(), q);
    release_pages(values);
  }

  // cos or sin of position * frequency in steps of 1/32767: [P, head_dim / 2].
  void write_rope(const std::string& name) {
    if (!written_.insert(name).second) return;
    const std::vector<double> frequencies = rope_inverse_frequencies(graph_.config);
    const bool cosine = name == "rope.cos";
    std::vector<int16_t> q;
    q.reserve(static_cast<size_t>(positions_) * frequencies.size());
    for (int position = 0; position < positions_; ++position) {
      for (double frequency : frequencies) {
        const double angle = position * frequency;
        const double value = cosine ? std::cos(angle) : std::sin(angle);
        q.push_back(static_cast<int16_t>(std::floor(value * 32767.0 + 0.5)));
      }
    }
    store_.add(name, "I16", {positions_, static_cast<int64_t>(frequencies.size())}, q);
  }

  void write_silu(const Node& node) {
    const int bits = bitwidth(graph_.site(node.in[0]).qparams.dtype);
    const QParams& out = graph_.site(node.out).qparams;
    const std::vector<int16_t> table =
        make_silu_table(bits, scale_of(graph_, node.in[0]), out.scale[0], out.zero_point[0]);
    store_.add(node.name + ".table", "I16", {static_cast<int64_t>(table.size())}, table);
  }

  void write_linear(const Node& node) {
    Site& w = site(node.weight);
    const torch::Tensor& values = weight(w.name);
    LinearToFreeze linear;
    linear.name = node.name;
    linear.weight = {values.data_ptr<float>(), w.rows, w.cols};
    if (node.bias) linear.bias = weight(node.name + ".bias").data_ptr<float>();
    linear.weight_range = weight_range(w.spec);
    linear.activation_bits = bitwidth(graph_.site(node.in[0]).qparams.dtype);
    linear.x_scale = scale_of(graph_, node.in[0]);
    linear.y_scale = scale_of(graph_, node.out);
    linear.scale = w.qparams.scale;
    choose_weight_scales(w, linear);
    store_linear(node, w, linear);
    release_pages(values);
  }

  // Scales of blocks, and those of channels unless they are given.
  static void choose_weight_scales(const Site& w, LinearToFreeze& linear) {
    const bool given = !linear.scale.empty();
    linear.scale.resize(static_cast<size_t>(w.rows));
    linear.block_size = w.spec.block_size;
    if (linear.block_size != 0) {
      linear.blocks.resize(static_cast<size_t>(w.rows * (w.cols / linear.block_size)));
      block_scales(linear.weight, w.spec, w.rotated, linear.blocks.data());
      if (!given) channel_scales(linear.blocks, linear.scale);
    } else if (!given) {
      weight_scales(linear.weight, w.spec, w.rotated, linear.scale.data());
    }
  }

  void store_linear(const Node& node, Site& w, const LinearToFreeze& linear) {
    FrozenLinear frozen = freeze_linear(linear);
    const int64_t n = w.rows;
    reports_[w.name] = {
        w.spec.bitwidth, linear.block_size,
        power_ratio_db(sum_of_squares(linear.weight),
                       weight_error(linear.weight, frozen.scale.data(), frozen.q.data()))};
    if (w.qparams.dtype == DType::kS4) {
      store_.add(w.name, "U8", {n, w.cols / 2}, pack_nibbles(frozen.q));
    } else {
      store_.add(w.name, "I8", {n, w.cols}, frozen.q);
    }
    store_.add(w.name + ".scale", "F32", {n}, frozen.scale);
    store_.add(node.name + ".row_sum", "I32", {n}, frozen.row_sum);
    store_.add(node.name + ".multiplier", "I32", {n}, frozen.mantissa);
    store_.add(node.name + ".shift", "I32", {n}, frozen.shift);
    if (node.bias) store_.add(node.name + ".bias", "I32", {n}, frozen.bias);
    w.qparams.scale = std::move(frozen.scale);
    w.qparams.zero_point.assign(static_cast<size_t>(n), 0);
    w.qparams.axis = 0;
  }

  const FloatModel& model_;
  Graph& graph_;
  const FreezeOptions& options_;
  const int positions_;
  TensorStore store_;
  std::set<std::string> written_;  // tables that several nodes share
  WeightReports reports_;
};

}  // namespace

WeightReports freeze(const FloatModel& model, Graph& graph, const std::filesystem::path& folder,
                     const nlohmann::json& manifest, const FreezeOptions& options) {
  const FloatModel here = moved(model, torch::kCPU);
  return Freezer(here, graph, options).run(folder, manifest);
}

}  // namespace qnpu
