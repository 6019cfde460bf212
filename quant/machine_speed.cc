#include "quant/machine_speed.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "base/clock.h"
#include "quant/matmul.h"
#include "quant/tensor.h"

namespace qnpu {
namespace {

constexpr double kMeasured = 0.05;  // seconds for each speed

// The best of several runs: what else the machine does shall not count.
double shortest_seconds(const std::function<void()>& work) {
  work();  // compiles kernels, touches memory
  double best = INFINITY;
  const auto begin = Clock::now();
  for (int i = 0; i < 3 || seconds_since(begin) < kMeasured; ++i) {
    const auto start = Clock::now();
    work();
    best = std::min(best, seconds_since(start));
  }
  return best;
}

MachineSpeed measure() {
  const torch::NoGradGuard no_grad;
  constexpr int64_t kTokens = 512, kSize = 1024, kValues = int64_t{1} << 22;
  const torch::Tensor x = torch::ones({kTokens, kSize});
  const torch::Tensor w = torch::ones({kSize, kSize});
  const torch::Tensor x16 = x.to(torch::kBFloat16), w16 = w.to(torch::kBFloat16);
  const torch::Tensor values = torch::ones({kValues});
  const double operations = 2.0 * kTokens * kSize * kSize;
  return {operations / shortest_seconds([&] { matmul_bf16(x16, w16); }),
          operations / shortest_seconds([&] { torch::matmul(x, w); }),
          kValues / shortest_seconds([&] { values.mul(0.5); }), torch::get_num_threads()};
}

}  // namespace

const MachineSpeed& machine_speed() {
  static const MachineSpeed speed = measure();
  return speed;
}

}  // namespace qnpu
