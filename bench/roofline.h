// What this machine can do, measured in the process that measures the kernels: integer
// multiply-adds of the chosen instruction set, and reading memory, on all of its threads.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>

#include "base/clock.h"
#include "kernels/isa.h"

namespace qnpu {

struct Roofline {
  double operations = 0;  // per second; a multiply-add counts twice
  double bytes = 0;       // read per second
};

// Measured at the first call. No peak is known for the reference.
const Roofline& roofline();

// Of one iteration. Where memory does not matter, bytes are 0.
struct Work {
  double multiply_adds = 0;
  double bytes = 0;
};

// Counters: GOP/s and GB/s, and their percentages of the roofline.
void report(benchmark::State& state, const Work& work, double seconds);

template <typename Function>
void measure(benchmark::State& state, const Work& work, const Function& run) {
  const auto start = Clock::now();
  for (auto _ : state) run();
  report(state, work, seconds_since(start) / static_cast<double>(state.iterations()));
}

// Multiply-adds of u8 by s8 without memory, at least `count`; returns how many it did.
int64_t multiply_adds_avx2(int64_t count);
int64_t multiply_adds_avx512vnni(int64_t count);
int64_t multiply_adds_amxint8(int64_t count);

}  // namespace qnpu
