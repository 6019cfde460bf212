// All linears that read one input site, as one: their rows stand below each other, so the input is
// rounded once and each of forward, input gradient and weight gradient is one matrix product.
//
//   q, k, v     qkv_proj.in        gate, up    gate_up_proj.in        o, down    their own
//
// y = (s_x c_x) (s_w c_w)' with integers c_x in -128 .. 127 and c_w in -127 .. 127: bf16 holds them
// exactly, the product accumulates in fp32, and one pass over its result applies scales and bias.
#pragma once

#include <vector>

#include "quant/learn/grid.h"
#include "quant/learn/record.h"
#include "quant/tensor.h"

namespace qnpu {

struct LinearPart {
  int node = -1;      // in the graph
  int64_t first = 0;  // row in the group
  int64_t rows = 0;
  Grid out;                     // of its output; not used: values pass
  double out_scale_grad = 0.0;  // of out.scale, if the group learns it: added to by each backward
};

struct LinearGroup {
  int site = -1;  // the input
  std::vector<LinearPart> parts;
  Grid input;               // not used: the input passes unrounded (16 bits), unless ...
  float token_qmax = 0.0f;  // ... this is not 0: s_x is each token's own, max|x| / token_qmax, and
                            // the gradient passes straight through
  torch::Tensor codes;      // [N, K] integers, or real weights if they are not rounded
  torch::Tensor scale;      // [N] fp32 (fp64); ones for real weights

  // Weight of the input's own quantization error, |rounded - x|^2 / |x|^2 with x fixed, in the loss
  // (method.md Eq. 3): it moves the input's scale alone.
  double local_weight = 0.0;
  bool learn_outputs = false;  // the scales of the parts' outputs

  // Gradients are added here by each backward pass.
  torch::Tensor codes_grad;       // [N, K] of codes (scale included), fp32; undefined: not wanted
  double input_scale_grad = 0.0;  // of input.scale
};

// x [T, K] -> one output [T, rows] per part, in the type of `codes`. bias [N], or undefined.
Tensors linears(const torch::Tensor& x, LinearGroup& group, const torch::Tensor& bias = {});

}  // namespace qnpu
