// Where a float model computes.
#pragma once

#include <string>

#include "quant/tensor.h"

namespace qnpu {

// "cpu", or "cuda": of a machine's GPUs one for each of its processes, by torchrun's variable
// LOCAL_RANK. Error: there is none.
torch::Device device_named(const std::string& name);

}  // namespace qnpu
