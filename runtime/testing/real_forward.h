// The node list in real numbers: a second, plain reading of what an artifact means, for tests. It
// shares no code with the kernels: every site is a matrix of doubles, every operation is the
// textbook formula, and rounding happens at sites only (if asked for).
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "model/artifact.h"

namespace qnpu::testing {

struct RealModel {
  Graph graph;
  // Dequantized: weights [N, K], biases [N] (by "<node>.bias"), tables, the caches' first rows [P,
  // KV * hd] (by "<cache>.prefix"; the graph says P); by tensor name.
  std::map<std::string, std::vector<double>> tensors;
};

RealModel dequantize(const Artifact& artifact);

// Values of every activation site for tokens at positions P .. P + T - 1: [T, cols]; caches as
// [P + T, KV * hd]; scores [H, T, P + T] (positions that a token does not see hold 0).
using RealValues = std::vector<std::vector<double>>;

// `round_sites`: each node's output is rounded to its site's grid and clamped to its range.
RealValues real_forward(const RealModel& model, std::span<const int32_t> tokens, bool round_sites);

// One node alone, on the values given for its inputs; nothing is rounded.
std::vector<double> real_node(const RealModel& model, std::span<const int32_t> tokens,
                              const Node& node, const RealValues& values);

// 10 log10(sum of wanted^2 / sum of (got - wanted)^2); 200 where both are equal.
double sqnr(std::span<const double> wanted, std::span<const double> got);

}  // namespace qnpu::testing
