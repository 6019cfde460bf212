// What a run will take, said before it begins: seconds and memory, from the model's shapes, the
// recipe's steps and the amount of text, and from three speeds of this machine that are measured in
// a fraction of a second.
//
// Time. A step is so many floating-point operations in bf16 products, so many in fp32, so many
// values touched by elementwise passes, and so many operations called; seconds are the sum of each
// count over its speed, and more with several threads, which wait for each other. With P weights of
// the linears in the layers, n tokens and L(x) a sum over layers:
//
//   forward      2 P n (bf16), L(4 H hd T) n (fp32: scores and context), L(sites' columns) n and
//                several times L(H T) n values, P values for each window (weights become bf16)
//   calibrate    forward, with the head, and four passes more over every value
//   round        two forwards (one without feedback), 2 K^2 n for each matrix of moments, and for
//                each linear some 20 N K^2 (fp32): Cholesky, columns, descents
//   learn, tune  a step: 8 P n and 4 P_head n for the student (forward twice, two products
//                backward), 2 (P + P_head) n for the teacher of a KL loss, at the share of the peak
//                that a whole step reaches; learned rotations: 6 D (P + tables) (fp32)
//   rotate       2 D (P + tables) in fp64
//
// Memory is the largest of what each step holds at once: the model in fp32; beside it, in GPTQ, the
// weights not yet replaced and the activations of all windows at one place, twice with feedback; in
// learning the teacher, both networks' weights in bf16 and gradients. Of weights in files only
// those being worked on count, and the embedding and the head. Coefficients were fitted to
// SmolLM2-135M on two cores (docs/commands.md); the result is meant to be right within a third.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "model/graph.h"
#include "model/recipe.h"
#include "quant/machine_speed.h"

namespace qnpu {

struct Workload {
  int windows = 16;  // of calibration
  int length = 2048;
  int64_t sampled_tokens = 0;   // that the model writes first
  int64_t held_out_tokens = 0;  // that learning is judged by
  int processes = 1;            // that share windows and sequences, and the machine
  bool spilled = false;         // the weights are mapped from files (spill.h)
};

struct Estimate {
  std::map<std::string, double> seconds;  // by step
  double total = 0.0;                     // seconds
  int64_t peak_bytes = 0;                 // of one process
};

// `graph` is the recipe's for the model.
Estimate estimate_run(const Graph& graph, const Recipe& recipe, const Workload& workload,
                      const MachineSpeed& speed);

// "about 5 minutes and 2.9 GB of memory"
std::string to_text(const Estimate& estimate);

}  // namespace qnpu
