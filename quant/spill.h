// Weights of models larger than memory: each matrix in a file without a name, mapped. Every step of
// quantization walks through the model layer by layer, and tells when it is done with a matrix for
// now; of all matrices, those in use are in memory.
//
// All functions take tensors in memory as well, and leave them there: who walks need not know.
#pragma once

#include <filesystem>

#include "quant/tensor.h"

namespace qnpu {

// The same numbers in a file in `folder`, contiguous. The disk space is free again when the last
// tensor that shares them is gone. Error: disk full.
torch::Tensor spilled(const torch::Tensor& tensor, const std::filesystem::path& folder);

bool is_spilled(const torch::Tensor& tensor);

// The new weight goes where the old one was: to a file, or stays in memory.
void replace(torch::Tensor& weight, const torch::Tensor& value);

// Done with it for now: it no longer counts as this process's memory.
void release_pages(const torch::Tensor& weight);

}  // namespace qnpu
