// Joins a forward to its backward in libtorch's graph: a node whose backward is a lambda.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "quant/tensor.h"

namespace qnpu {

using Tensors = std::vector<torch::Tensor>;

// From the gradients of the outputs (undefined where nobody used one) to those of the inputs.
using Backward = std::function<Tensors(Tensors gradients)>;

// Makes `outputs`, computed without gradients, depend on `inputs`. The lambda may hold inputs and
// intermediate values, but of the outputs only detached ones (else they would hold each other).
void record(Tensors& outputs, const Tensors& inputs, Backward backward);
torch::Tensor record(torch::Tensor output, const Tensors& inputs, Backward backward);

}  // namespace qnpu
