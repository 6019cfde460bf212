// How fast this machine is, measured in a fraction of a second: what expected times are made of.
#pragma once

namespace qnpu {

// Per second.
struct MachineSpeed {
  double bf16 = 0.0;    // floating-point operations of matmul_bf16
  double fp32 = 0.0;    // of torch::matmul
  double values = 0.0;  // fp32 values read, changed and written
  int threads = 1;      // that reached these speeds together
};

// Measured at the first call with that call's number of threads.
const MachineSpeed& machine_speed();

}  // namespace qnpu
