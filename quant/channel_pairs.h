// Scales of channels: x_j / s_j where an activation is made, W[:, j] * s_j where it is read. Exact,
// and offline. SmoothQuant finds s by a formula (smooth.h), MobileQuant learns it (method.md 2.11).
//
//   input norm -> q, k, v          gamma / s
//   post norm -> gate, up          gamma / s
//   up -> down                     rows of up / s, since silu(gate) * up is linear in up
//   v -> o                         rows of v, its bias and a prefix's values / s; query heads that
//                                  share values share their s
#pragma once

#include <string>
#include <vector>

#include "quant/float_model.h"
#include "quant/tensor.h"

namespace qnpu {

// One activation, what divides it, and the linears that read it; names within a layer.
struct ChannelPair {
  const char* input;
  const char* divider;
  std::vector<const char*> readers;
  bool norm;    // is the divider one? Otherwise it is a linear
  bool values;  // is the divider v_proj?
};

const std::vector<ChannelPair>& channel_pairs();

// "layers.3.mlp.up_proj"
std::string in_layer(int layer, const std::string& module);

// One number per channel of the divider as one per column of a reader: [KV * hd] -> [H * hd] from v
// to o, itself elsewhere. `to_channels` is its transpose: sums over the columns of each channel.
torch::Tensor to_columns(const torch::Tensor& channels, int64_t columns, int64_t head_dim);
torch::Tensor to_channels(const torch::Tensor& columns, int64_t channels, int64_t head_dim);

// All that a module ("layers.3.self_attn.v_proj", or a norm) puts out: its weight's rows and its
// bias, by s [rows].
void divide_output(FloatModel& model, const std::string& module, const torch::Tensor& s);

// A prefix's rows of a cache, if there is one, by s [KV * hd].
void divide_prefix(FloatModel& model, const std::string& cache, const torch::Tensor& s);

// Needs fold_norms first, and no R1 (between norm and linears there is then a rotation). Keeps the
// function. A gamma is put on the grid of the 16-bit table that will hold it, and s is taken from
// that: rounding the table later changes nothing. s [channels of the divider], positive, fp64.
void divide_channels(FloatModel& model, int layer, const ChannelPair& pair, torch::Tensor s);

}  // namespace qnpu
