// R1 and R2 folded into the weights (SpinQuant paper; method.md 2.1). Linears compute y = W x + b.
//
//   residual stream h' = h R1:   embedding E R1; readers (q, k, v, gate, up, lm_head) W R1;
//                                writers (o, down) R1' W, and b R1
//   values v' = v R2 per head:   v: R2' W, and b R2, for the rows of each KV head; a prefix's
//   values;
//                                o: W R2 for the columns of each query head
//
// Attention mixes positions, never channels of a head, and an RMSNorm without gamma keeps the
// basis, so both pass through. All heads of a layer share one R2, since query heads share KV heads.
#include <algorithm>

#include "base/status.h"
#include "quant/float_model.h"
#include "quant/hadamard.h"
#include "quant/random.h"
#include "quant/spill.h"

namespace qnpu {
namespace {

constexpr int64_t kRows = 8192;  // at a time in float64

// w r, computed in float64, in w's own type.
torch::Tensor times(const torch::Tensor& w, const torch::Tensor& r) {
  torch::Tensor out = torch::empty(w.sizes(), w.options());
  for (int64_t row = 0; row < w.size(0); row += kRows) {
    const int64_t count = std::min(kRows, w.size(0) - row);
    out.narrow(0, row, count).copy_(torch::matmul(w.narrow(0, row, count).to(torch::kFloat64), r));
  }
  return out;
}

// r' w
torch::Tensor from_left(const torch::Tensor& r, const torch::Tensor& w) {
  return times(w.t(), r).t().contiguous();
}

torch::Tensor bias_times(const torch::Tensor& bias, const torch::Tensor& r) {
  return times(bias.view({-1, r.size(0)}), r).flatten();
}

// Independent streams of one seed.
uint64_t stream(uint64_t seed, uint64_t index) {
  return SplitMix64(SplitMix64(seed).next() ^ index).next();
}

torch::Tensor make_rotation(Rotation kind, int n, uint64_t seed) {
  return kind == Rotation::kHadamard ? random_hadamard(n, seed) : random_orthogonal(n, seed);
}

void rotate_residual(FloatModel& model, const torch::Tensor& r1) {
  auto& weights = model.weights;
  for (const char* name : {"embed_tokens.weight", "lm_head.weight"}) {
    replace(weights.at(name), times(weights.at(name), r1));
  }
  for (int layer = 0; layer < model.config.num_layers; ++layer) {
    const std::string prefix = fmt::format("layers.{}.", layer);
    for (const char* reader : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                               "mlp.gate_proj", "mlp.up_proj"}) {
      torch::Tensor& weight = weights.at(prefix + reader + ".weight");
      replace(weight, times(weight, r1));
    }
    for (const char* writer : {"self_attn.o_proj", "mlp.down_proj"}) {
      torch::Tensor& weight = weights.at(prefix + writer + ".weight");
      replace(weight, from_left(r1, weight));
      const auto bias = weights.find(prefix + writer + ".bias");
      if (bias != weights.end()) bias->second = bias_times(bias->second, r1);
    }
  }
}

void rotate_values(FloatModel& model, int layer, const torch::Tensor& r2) {
  auto& weights = model.weights;
  const std::string prefix = fmt::format("layers.{}.self_attn.", layer);
  torch::Tensor& v = weights.at(prefix + "v_proj.weight");  // [KV * hd, D]
  const int64_t heads = model.config.num_kv_heads, head_dim = model.config.head_dim;
  const torch::Tensor by_head = v.view({heads, head_dim, -1}).transpose(1, 2);  // [KV, D, hd]
  replace(v, times(by_head.reshape({-1, head_dim}), r2)
                 .view({heads, -1, head_dim})
                 .transpose(1, 2)
                 .reshape({heads * head_dim, -1}));
  const auto bias = weights.find(prefix + "v_proj.bias");
  if (bias != weights.end()) bias->second = bias_times(bias->second, r2);
  const auto rows = model.prefix.rows.find(prefix + "v_cache");  // [P, KV * hd]
  if (rows != model.prefix.rows.end()) {
    rows->second = bias_times(rows->second, r2).view(rows->second.sizes());
  }
  torch::Tensor& o = weights.at(prefix + "o_proj.weight");  // [D, H * hd]
  replace(o, times(o.view({-1, head_dim}), r2).view(o.sizes()));
}

}  // namespace

Rotations make_rotations(const ModelConfig& config, Rotation r1, Rotation r2, uint64_t seed) {
  Rotations rotations;
  if (r1 != Rotation::kNone) {
    rotations.r1 = make_rotation(r1, config.hidden_size, stream(seed, 0));
  }
  if (r2 == Rotation::kNone) return rotations;
  for (int layer = 0; layer < config.num_layers; ++layer) {
    rotations.r2.push_back(make_rotation(r2, config.head_dim, stream(seed, layer + 1)));
  }
  return rotations;
}

void rotate(FloatModel& model, const Rotations& rotations) {
  const torch::NoGradGuard no_grad;
  QNPU_ASSERT(!model.config.tied_embeddings);  // fold_norms came before
  const torch::Device device = device_of(model);
  if (rotations.r1.defined()) rotate_residual(model, rotations.r1.to(device));
  for (size_t layer = 0; layer < rotations.r2.size(); ++layer) {
    rotate_values(model, static_cast<int>(layer), rotations.r2[layer].to(device));
  }
}

void rotate(FloatModel& model, Rotation r1, Rotation r2, uint64_t seed) {
  rotate(model, make_rotations(model.config, r1, r2, seed));
}

}  // namespace qnpu
