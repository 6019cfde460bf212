#include "quant/learn/workers.h"

#ifndef USE_C10D_GLOO
#define USE_C10D_GLOO
#endif
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "base/status.h"

namespace qnpu {
namespace {

using torch::Tensor;

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

}  // namespace

struct Workers::Group {
  c10::intrusive_ptr<c10d::Store> store;  // rank 0's is the server
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
};

Workers::Workers(int rank, int size, const std::string& host, int port)
    : group_(std::make_shared<Group>()), rank_(rank), size_(size) {
  try {
    c10d::TCPStoreOptions meeting;
    meeting.port = static_cast<uint16_t>(port);
    meeting.isServer = rank == 0;
    meeting.numWorkers = size;
    meeting.timeout = kMeeting;
    group_->store = c10::make_intrusive<c10d::TCPStore>(host, meeting);
    const auto options = c10d::ProcessGroupGloo::Options::create(kPatience);
    const bool here = host == "127.0.0.1" || host == "localhost";
    options->devices.push_back(here ? c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1")
                                    : c10d::ProcessGroupGloo::createDefaultDevice());
    group_->gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(group_->store, rank, size, options);
  } catch (const std::exception& error) {
    fail("process {} of {} could not meet the others at {}:{}: {}", rank + 1, size, host, port,
         first_line(error));
  }
}

Workers Workers::from_environment() {
  if (std::getenv("WORLD_SIZE") == nullptr) return {};
  const int size = number("WORLD_SIZE", 1, 1 << 16);
  if (size == 1) return {};
  const int rank = number("RANK", 0, size - 1);
  return {rank, size, variable("MASTER_ADDR"), number("MASTER_PORT", 1, 65535)};
}

void Workers::sum(Tensor tensor) const {
  if (size_ == 1) return;
  std::vector<Tensor> tensors{std::move(tensor)};
  try {
    group_->gloo->allreduce(tensors)->wait();
  } catch (const std::exception& error) {
    fail("process {} of {} lost another one: {}", rank_ + 1, size_, first_line(error));
  }
}

void Workers::sum(const std::vector<Tensor>& tensors) const {
  if (size_ == 1) return;
  const torch::NoGradGuard no_grad;
  std::vector<Tensor> flat;
  for (const Tensor& tensor : tensors) flat.push_back(tensor.flatten().to(torch::kFloat64));
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
