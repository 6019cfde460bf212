// Norm weights and the attention scale, absorbed by the linears beside them.
//
//   W (gamma * x) = (W diag(gamma)) x        input norm -> q, k, v; post norm -> gate, up;
//                                            final norm -> lm_head
//   scale * (q . k) = (scale * q) . k        scale -> W_q, b_q; with a q_norm -> its gamma
//
// The gamma of q_norm and k_norm stays where it is: RoPE lies between it and the scores. Embedding
// rows keep their means: an RMSNorm, unlike a LayerNorm, does not remove them.
#include <initializer_list>

#include "base/status.h"
#include "quant/float_model.h"
#include "quant/spill.h"

namespace qnpu {
namespace {

std::string in_layer(int layer, const std::string& module) {
  return fmt::format("layers.{}.{}", layer, module);
}

// The product of two fp32 numbers, rounded once, is what float64 and a cast would give.
void fold_norm(FloatModel& model, const std::string& norm,
               std::initializer_list<std::string> linears) {
  torch::Tensor& gamma = model.weights.at(norm + ".weight");
  for (const std::string& linear : linears) {
    torch::Tensor& weight = model.weights.at(linear + ".weight");  // [N, K] * [K]
    replace(weight, weight * gamma);
  }
  gamma = torch::ones_like(gamma);
}

void scale(torch::Tensor& tensor, double factor) {
  replace(tensor, (tensor.to(torch::kFloat64) * factor).to(tensor.scalar_type()));
}

void fold_attention_scale(FloatModel& model) {
  for (int layer = 0; layer < model.config.num_layers; ++layer) {
    if (model.config.qk_norm) {
      scale(model.weights.at(in_layer(layer, "self_attn.q_norm.weight")), model.attention_scale);
      continue;
    }
    const std::string q = in_layer(layer, "self_attn.q_proj");
    scale(model.weights.at(q + ".weight"), model.attention_scale);
    if (model.config.qkv_bias) scale(model.weights.at(q + ".bias"), model.attention_scale);
  }
  model.attention_scale = 1.0;
}

}  // namespace

void fold_norms(FloatModel& model) {
  const torch::NoGradGuard no_grad;
  for (int layer = 0; layer < model.config.num_layers; ++layer) {
    fold_norm(model, in_layer(layer, "input_layernorm"),
              {in_layer(layer, "self_attn.q_proj"), in_layer(layer, "self_attn.k_proj"),
               in_layer(layer, "self_attn.v_proj")});
    fold_norm(model, in_layer(layer, "post_attention_layernorm"),
              {in_layer(layer, "mlp.gate_proj"), in_layer(layer, "mlp.up_proj")});
  }
  fold_norm(model, "norm", {"lm_head"});  // a new tensor: the embedding keeps its own
  model.config.tied_embeddings = false;
  fold_attention_scale(model);
}

}  // namespace qnpu
