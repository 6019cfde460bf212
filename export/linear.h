// A linear layer in the forms that the NPU's compiler takes as one integer operation
// (FullyConnected):
//
//   per channel   Gemm of the input and the weight [N, K], int8 or int4, one scale for each output
//   in blocks     MatMul of the input and the weight [K, N], int4; a block's scale is itself
//                 quantized: a uint8 multiplier times the channel's scale ("LPBQ"). The compiler
//                 multiplies both out and computes with int8 weights. With a bias: per channel,
//                 the products as int8.
#pragma once

#include <string>

#include "export/onnx_graph.h"
#include "model/artifact.h"

namespace qnpu {

// Writes the operation of `node` on x [rows, K]; returns its float edge [rows, N].
std::string write_linear(OnnxGraph& graph, WeightFile& weights, const Artifact& artifact,
                         const Node& node, const OnnxTensor& x);

// Products of a block's multiplier m in 1 .. 16 and 4-bit integers q in -7 .. 7, taken apart.
struct BlockWeights {
  std::vector<std::byte> q;           // int4 [K, N], low nibble first
  std::vector<std::byte> multiplier;  // uint8 [K / block, N]
};

// Of products [N, K]. Error if a block is no such product.
BlockWeights split_products(std::span<const int8_t> products, int64_t n, int64_t k, int64_t block,
                            const std::string& name);

}  // namespace qnpu
