// A node list made ready to run: per node its buffers, constants and law, as plain pointers and
// integers, so that the walk (execute.cc) looks nothing up and checks nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/law.h"
#include "kernels/attention/attention.h"
#include "kernels/isa.h"
#include "kernels/linear/linear.h"
#include "model/artifact.h"
#include "runtime/plan.h"

namespace qnpu {

struct BoundNode {
  Op op = Op::kAdd;
  bool wide = false;  // kLinear, kMul, kSilu: 16-bit activations; kConvert: 8 -> 16
  bool four = false;  // kConvert: 16 -> 4
  bool keys = false;  // kAppend: into the key cache
  int cols = 0;       // of an input's row
  int out_cols = 0;
  int heads = 1;
  int32_t zero_point = 0;  // kMul: of the first input; kMask: of the output
  const void* in0 = nullptr;
  const void* in1 = nullptr;
  void* out = nullptr;
  const int16_t* table = nullptr;  // embedding, gamma, cos or sin, SiLU
  const uint32_t* exp_high = nullptr;
  const uint32_t* exp_low = nullptr;
  LinearWeights linear;
  Requant requant;
  AddLaw add;
  MulLaw mul;
  RmsNormLaw norm;
  // kContext: the whole of attention; in1 are the values.
  const void* q = nullptr;
  const void* keys_in = nullptr;
  AttentionLaw attention;
};

struct BoundGraph {
  std::vector<BoundNode> nodes;
  // Behind the last cache write, nodes work on each row for itself: a caller that wants one row's
  // logits has only that row computed from here on.
  size_t tail = 0;
  AttentionShape attention;  // tokens and position are filled in by each walk
  int64_t cache_stride = 0;  // bytes from a sequence's cache to the next sequence's
  void* scratch = nullptr;
  void* trace_scratch = nullptr;  // null: attention is done as a whole
  Isa isa = Isa::kReference;
};

// Scratch that the kernels need for walks of up to max_rows tokens: with attention as a whole, and
// of its steps one by one.
size_t graph_scratch_bytes(const Graph& graph, int capacity, int max_rows);
size_t trace_scratch_bytes(const Graph& graph, int capacity, int max_rows);

// Error if a node's law is missing or out of range, or its widths have no kernel.
BoundGraph bind_graph(const Artifact& artifact, const Plan& plan, int capacity, std::byte* arena,
                      Isa isa);

// Gives the scores, masked scores and probabilities their buffers in the trace's arena; null takes
// them away.
void bind_trace(const Graph& graph, const Plan& plan, std::byte* trace_arena, BoundGraph& bound);

}  // namespace qnpu
