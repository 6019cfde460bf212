// Processes that work together: each has the whole model and a share of the texts, and sums over
// all of them make statistics and gradients (libtorch's c10d: Gloo on CPUs, NCCL on GPUs).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "quant/tensor.h"

namespace qnpu {

class Workers {
 public:
  Workers() = default;  // this process alone

  // Meets the others at rank 0, which listens on host:port. Blocks until all are there. `device`:
  // where this process computes, a GPU of its own if it is one. Error: they do not come within two
  // minutes; libtorch has no backend for such a device.
  Workers(int rank, int size, const std::string& host, int port,
          torch::Device device = torch::kCPU);

  // By RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun sets them; this process alone
  // where there is no WORLD_SIZE. Error: some of them are missing or are no such numbers.
  static Workers from_environment(torch::Device device = torch::kCPU);

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool first() const { return rank_ == 0; }  // the one that writes
  bool mine(int64_t item) const { return item % size_ == rank_; }

  // Those of `items` that are mine.
  template <typename T>
  std::vector<T> share(const std::vector<T>& items) const {
    std::vector<T> result;
    for (size_t i = 0; i < items.size(); ++i) {
      if (mine(static_cast<int64_t>(i))) result.push_back(items[i]);
    }
    return result;
  }

  // Calls of all processes meet, in order. Each tensor becomes its sum over the processes, the same
  // to the bit in all of them, wherever it is. Error: one of them is gone.
  void sum(torch::Tensor tensor) const;                       // contiguous; where it stands
  void sum(const std::vector<torch::Tensor>& tensors) const;  // small ones, together, in fp64
  void sum(double& value) const;
  void sum(int64_t& value) const;

  torch::Tensor gather(const torch::Tensor& row) const;  // [n] int64 of each -> [size, n]

  // Do all processes give the same value?
  bool agree(uint64_t value) const;

 private:
  struct Group;
  std::shared_ptr<Group> group_;
  int rank_ = 0;
  int size_ = 1;
};

}  // namespace qnpu
