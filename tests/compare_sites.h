// What the simulator and the integer runtime have at every site, as real numbers in one order, for
// the tests that compare them.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "eval/metrics.h"
#include "quant/fake_quant.h"
#include "runtime/session.h"

namespace qnpu {

using SiteRows = std::map<int, std::vector<float>>;  // by site, flattened, visible values only

// Calls `visit` with a reference to every visible value, in the order of SiteRows: of scores
// [1, H, T, C] those of positions 0 .. C - T + t, of everything else all.
template <typename Visit>
void for_visible(const torch::Tensor& value, Role role, Visit visit) {
  float* data = value.data_ptr<float>();
  const int64_t cols = value.size(-1);
  for (int64_t row = 0; row < value.numel() / cols; ++row) {
    const int64_t rows = value.size(-2);
    const int64_t visible = role == Role::kScores ? cols - rows + row % rows + 1 : cols;
    for (int64_t c = 0; c < visible; ++c) visit(data[row * cols + c]);
  }
}

// The simulator's values; of caches the prefix's rows, then the tokens'. With `forced`, each site
// goes on with those values instead.
inline SiteRows simulate(const FloatModel& model, const Artifact& artifact,
                         const std::vector<int32_t>& tokens, const SiteRows* forced) {
  Simulator simulator(model, artifact.graph);
  set_artifact_weights(simulator, artifact);
  const SiteHook quantize = fake_quant_hook(artifact);
  SiteRows rows;
  const SiteHook hook = [&](int site, const torch::Tensor& value) {
    const torch::Tensor rounded = quantize(site, value).contiguous();
    const Role role = artifact.graph.site(site).role;
    const size_t before = rows[site].size();
    for_visible(rounded, role, [&](float x) { rows[site].push_back(x); });
    if (forced != nullptr) {
      const float* from = forced->at(site).data() + before;
      for_visible(rounded, role, [&](float& x) { x = *from++; });
    }
    return rounded;
  };
  const std::vector<int64_t> ids(tokens.begin(), tokens.end());
  simulator.logits(simulator.forward(torch::tensor(ids).unsqueeze(0), hook)[0], hook);
  return rows;
}

inline double real_value(const SiteValues& values, const QParams& qparams, int64_t index) {
  int32_t q = 0;
  switch (qparams.dtype) {
    case DType::kS4:
    case DType::kS8:
      q = static_cast<const int8_t*>(values.data)[index];
      break;
    case DType::kU16:
      q = static_cast<const uint16_t*>(values.data)[index];
      break;
    default:
      q = static_cast<const int16_t*>(values.data)[index];
  }
  return static_cast<double>(qparams.scale[0]) * (q - qparams.zero_point[0]);
}

// The same order as in `simulate`: rows of tokens, of caches all from position 0 on; of scores the
// visible ones.
inline std::vector<float> dequantize(const Graph& graph, const SiteValues& values) {
  const Site& site = graph.site(values.site);
  std::vector<float> out;
  const auto take = [&](int64_t index) {
    out.push_back(static_cast<float>(real_value(values, site.qparams, index)));
  };
  if (site.role == Role::kScores) {
    for (int64_t row = 0; row < int64_t{graph.config.num_heads} * values.tokens; ++row) {
      const int64_t visible = values.position + row % values.tokens + 1;
      for (int64_t c = 0; c < visible; ++c) take(row * values.row_stride + c);
    }
    return out;
  }
  const bool is_cache = site.role == Role::kKCache || site.role == Role::kVCache;
  const int64_t count = values.tokens + (is_cache ? values.position : 0);
  for (int64_t t = 0; t < count; ++t) {
    for (int64_t c = 0; c < site.cols; ++c) {
      const bool transposed = site.role == Role::kVCache;
      take(transposed ? c * values.row_stride + t : t * values.row_stride + c);
    }
  }
  return out;
}

inline SiteRows execute(const std::shared_ptr<const Artifact>& artifact,
                        const std::vector<int32_t>& tokens) {
  const int count = static_cast<int>(tokens.size());
  const int context = artifact->graph.prefix_length() + count;
  Session session(artifact, {.context = context, .max_rows = count});
  SiteRows rows;
  session.set_trace(
      [&](const SiteValues& values) { rows[values.site] = dequantize(session.graph(), values); });
  session.run(tokens, /*all_rows=*/true);
  return rows;
}

inline double perplexity_of(const std::vector<float>& logits, const std::vector<int32_t>& tokens) {
  const size_t vocabulary = logits.size() / tokens.size();
  LikelihoodSum sum;
  for (size_t t = 0; t + 1 < tokens.size(); ++t) {
    sum.add({logits.data() + t * vocabulary, vocabulary}, tokens[t + 1]);
  }
  return sum.perplexity();
}

// ---- node by node ----

inline double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::fabs(static_cast<double>(a[i]) - b[i]));
  }
  return largest;
}

// Steps of 16 bits by which a node's law may differ from real arithmetic (docs/numerics.md).
inline double allowed_steps16(const Artifact& artifact, const Node& node, size_t tokens) {
  const auto scale = [&](int site) { return double{artifact.graph.site(site).qparams.scale[0]}; };
  switch (node.op) {
    case Op::kLinear: {  // where float puts a sum on the other side of a cut
      const auto scales =
          artifact.tensors.at(artifact.graph.site(node.weight).name + ".scale").as<float>();
      const double largest = *std::max_element(scales.begin(), scales.end());
      return 2.0 + 256.0 * scale(node.in[0]) * largest / scale(node.out);
    }
    case Op::kScores:
    case Op::kContext:
      return 2.0 + 256.0 * scale(node.in[0]) * scale(node.in[1]) / scale(node.out);
    case Op::kMul:  // the multiplier is an integer, which may be small
      return 2.0 + 32768.0 * 0.5 / std::get<MulLaw>(node.law).multiplier;
    case Op::kSoftmax:  // each exponential in the sum is cut by a step of 2^-15, by half of one
                        // mostly
      return 7.0 + static_cast<double>(tokens);
    default:
      return 3.0;
  }
}

// By name of the site, the steps by which one node may differ in a sequence of `tokens`: one at 4
// and 8 bits.
inline std::map<std::string, double> allowed_steps(const Artifact& artifact, size_t tokens) {
  std::map<std::string, double> allowed;
  for (const Node& node : artifact.graph.nodes) {
    const Site& out = artifact.graph.site(node.out);
    const bool narrow = bitwidth(out.qparams.dtype) <= 8;
    allowed[out.name] = narrow ? 1.0 : allowed_steps16(artifact, node, tokens);
  }
  return allowed;
}

}  // namespace qnpu
