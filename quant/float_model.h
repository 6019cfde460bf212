// A checkpoint as float tensors by site name ("layers.0.self_attn.q_proj.weight", biases
// "layers.0.self_attn.q_proj.bias"), and the exact transformations that prepare it for
// quantization.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/recipe.h"
#include "quant/tensor.h"

namespace qnpu {

// Tokens before every sequence, as what they leave in the caches (prefix.h). Empty: none.
struct Prefix {
  std::vector<int> tokens;                    // P ids
  std::map<std::string, torch::Tensor> rows;  // by name of the cache site: [P, cols] fp32
};

// Orthogonal matrices [n, n] (fp32) by which rows (or each part of n channels of a row) that a node
// computes are multiplied at run time, by the node's name. Nothing deployable has any (online.h).
using OnlineRotations = std::map<std::string, torch::Tensor>;

struct FloatModel {
  ModelConfig config;
  std::map<std::string, torch::Tensor>
      weights;                   // fp32; lm_head.weight shares the embedding if tied
  double attention_scale = 1.0;  // scores = attention_scale * q . k; 1 once folded into q
  Prefix prefix;                 // values in the basis of the weights
  OnlineRotations online;
};

// fp32 weights of models up to here stay in memory; the matrices of larger ones live in files.
constexpr int64_t kMostInMemory = int64_t{2} << 30;
int64_t float_bytes(const ModelConfig& config);  // of its weights in fp32

// Reads config.json and the safetensors. `spill` is a folder on a disk with room for all weights in
// fp32 (spill.h), for models of more than `most_in_memory` bytes; empty: every model in memory.
// Error: missing or extra-shaped tensor, NaN or infinity, unknown architecture, disk full; the
// sentence names file and tensor.
FloatModel load_float_model(const std::filesystem::path& folder,
                            const std::filesystem::path& spill = {},
                            int64_t most_in_memory = kMostInMemory);

// The same model with its tensors on a device: it shares those that are there already, others are
// copied (weights in files into the device's memory).
FloatModel moved(FloatModel model, torch::Device device);

// Where its weights are; the CPU if it has none.
torch::Device device_of(const FloatModel& model);

// Folds norm weights into the linears that read them (gamma becomes 1; q_norm and k_norm stay),
// attention_scale into q_proj (or q_norm), and unties the embedding. Keeps the function.
void fold_norms(FloatModel& model);

// R1 (D x D, residual stream) and R2 (head_dim x head_dim per layer, values), orthogonal, fp64.
struct Rotations {
  torch::Tensor r1;               // undefined: none
  std::vector<torch::Tensor> r2;  // empty: none
};
Rotations make_rotations(const ModelConfig& config, Rotation r1, Rotation r2, uint64_t seed);

// Folds them into the weights in float64 (method.md 2.1), biases and a prefix's values too. Needs
// fold_norms first. Keeps the function.
void rotate(FloatModel& model, const Rotations& rotations);
void rotate(FloatModel& model, Rotation r1, Rotation r2, uint64_t seed);

}  // namespace qnpu
