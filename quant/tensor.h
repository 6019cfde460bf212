#pragma once

// libtorch as the files of this folder use it: tensors, their operations, autograd. <torch/torch.h>
// has modules, data loaders and optimisers besides, and takes twice as long to compile.
#include <torch/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>
