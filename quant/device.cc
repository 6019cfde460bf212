#include "quant/device.h"

#include <torch/cuda.h>

#include <cstdlib>

#include "base/status.h"

namespace qnpu {

torch::Device device_named(const std::string& name) {
  if (name == "cpu") return torch::kCPU;
  if (name != "cuda") fail("there is no device '{}': cpu and cuda can be had", name);
  const auto count = static_cast<int>(torch::cuda::device_count());
  if (count == 0) {
    fail(
        "--device cuda: there is no CUDA device here, or this program was built with a libtorch "
        "without CUDA; leave the option out");
  }
  const char* rank = std::getenv("LOCAL_RANK");
  const int index = rank == nullptr ? 0 : std::atoi(rank) % count;
  return {torch::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

}  // namespace qnpu
