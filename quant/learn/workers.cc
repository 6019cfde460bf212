#include "quant/learn/workers.h"

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
// cmake/libtorch.cmake finds out which of the two can be had: libtorch's own definitions tell what
// it was built with, not whether the backend's headers are there.
#ifdef QNPU_GLOO
#ifndef USE_C10D_GLOO
#define USE_C10D_GLOO
#endif
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#endif
#ifdef QNPU_NCCL
#ifndef USE_C10D_NCCL
#define USE_C10D_NCCL
#endif
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include "base/status.h"

namespace qnpu {
namespace {

using torch::Tensor;

using Store = c10::intrusive_ptr<c10d::Store>;
using AllReduce = std::function<void(std::vector<Tensor>&)>;

constexpr std::chrono::minutes kMeeting{2};
constexpr std::chrono::hours kPatience{6};  // what one process does alone may take long

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') {
    fail(
        "WORLD_SIZE is set but not {}: processes that work together need RANK, WORLD_SIZE, "
        "MASTER_ADDR and MASTER_PORT",
        name);
  }
  return value;
}

int number(const char* name, int low, int high) {
  const std::string text = variable(name);
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || *end != '\0' || value < low || value > high) {
    fail("the environment variable {} is '{}', not a number from {} to {}", name, text, low, high);
  }
  return value;
}

// libtorch's messages go on with a stack trace.
std::string first_line(const std::exception& error) {
  const char* text = error.what();
  return {text, std::strcspn(text, "\n")};
}

void check_backend(torch::Device device) {
#ifdef QNPU_GLOO
  if (device.is_cpu()) return;
#endif
#ifdef QNPU_NCCL
  if (device.is_cuda()) return;
#endif
  fail(
      "processes on {} work together over {}, which this program's libtorch does not offer: use "
      "one process",
      device.is_cpu() ? "CPUs" : "GPUs", device.is_cpu() ? "Gloo" : "NCCL");
}

template <typename ProcessGroup>
AllReduce reduction_of(c10::intrusive_ptr<ProcessGroup> group) {
  return [group](std::vector<Tensor>& tensors) { group->allreduce(tensors)->wait(); };
}

#ifdef QNPU_GLOO
AllReduce gloo(const Store& store, int rank, int size, const std::string& host) {
  const auto options = c10d::ProcessGroupGloo::Options::create(kPatience);
  const bool here = host == "127.0.0.1" || host == "localhost";
  options->devices.push_back(here ? c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1")
                                  : c10d::ProcessGroupGloo::createDefaultDevice());
  return reduction_of(c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, options));
}
#endif

#ifdef QNPU_NCCL
AllReduce nccl(const Store& store, int rank, int size) {
  const auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = kPatience;
  return reduction_of(c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options));
}
#endif

}  // namespace

struct Workers::Group {
  torch::Device device;  // where tensors are while they are summed
  Store store;           // rank 0's is the server
  AllReduce allreduce;
};

Workers::Workers(int rank, int size, const std::string& host, int port, torch::Device device)
    : group_(std::make_shared<Group>(Group{device, {}, {}})), rank_(rank), size_(size) {
  check_backend(device);
  try {
    c10d::TCPStoreOptions meeting;
    meeting.port = static_cast<uint16_t>(port);
    meeting.isServer = rank == 0;
    meeting.numWorkers = size;
    meeting.timeout = kMeeting;
    group_->store = c10::make_intrusive<c10d::TCPStore>(host, meeting);
#ifdef QNPU_GLOO
    if (device.is_cpu()) group_->allreduce = gloo(group_->store, rank, size, host);
#endif
#ifdef QNPU_NCCL
    if (device.is_cuda()) group_->allreduce = nccl(group_->store, rank, size);
#endif
  } catch (const std::exception& error) {
    fail("process {} of {} could not meet the others at {}:{}: {}", rank + 1, size, host, port,
         first_line(error));
  }
}

Workers Workers::from_environment(torch::Device device) {
  if (std::getenv("WORLD_SIZE") == nullptr) return {};
  const int size = number("WORLD_SIZE", 1, 1 << 16);
  if (size == 1) return {};
  const int rank = number("RANK", 0, size - 1);
  return {rank, size, variable("MASTER_ADDR"), number("MASTER_PORT", 1, 65535), device};
}

void Workers::sum(Tensor tensor) const {
  if (size_ == 1) return;
  std::vector<Tensor> there{tensor.to(group_->device)};  // the tensor itself, if it is there
  try {
    group_->allreduce(there);
  } catch (const std::exception& error) {
    fail("process {} of {} lost another one: {}", rank_ + 1, size_, first_line(error));
  }
  if (!there.front().is_same(tensor)) tensor.copy_(there.front());
}

void Workers::sum(const std::vector<Tensor>& tensors) const {
  if (size_ == 1) return;
  const torch::NoGradGuard no_grad;
  std::vector<Tensor> flat;
  for (const Tensor& tensor : tensors) {
    flat.push_back(tensor.flatten().to(torch::kCPU, torch::kFloat64));
  }
  const Tensor all = torch::cat(flat);
  sum(all);
  int64_t begin = 0;
  for (Tensor tensor : tensors) {
    tensor.copy_(all.narrow(0, begin, tensor.numel()).view(tensor.sizes()));
    begin += tensor.numel();
  }
}

void Workers::sum(double& value) const {
  const Tensor tensor = torch::tensor({value}, torch::kFloat64);
  sum(tensor);
  value = tensor.item<double>();
}

void Workers::sum(int64_t& value) const {
  const Tensor tensor = torch::tensor({value}, torch::kInt64);
  sum(tensor);
  value = tensor.item<int64_t>();
}

// Each process fills its row, the sum does the rest.
Tensor Workers::gather(const Tensor& row) const {
  const Tensor rows = torch::zeros({size_, row.numel()}, torch::kInt64);
  rows[rank_].copy_(row);
  sum(rows);
  return rows;
}

bool Workers::agree(uint64_t value) const {
  const Tensor all = gather(torch::tensor({static_cast<int64_t>(value)}, torch::kInt64));
  return (all == all[0]).all().item<bool>();
}

}  // namespace qnpu
