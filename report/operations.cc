#include "report/operations.h"

#include <map>
#include <tuple>

namespace qnpu {
namespace {

int bits_of(const Site& site) { return bitwidth(site.qparams.dtype); }

// Weights in blocks are stored as 8 bits, and multiplied as such.
int weight_bits(const Site& site) { return bits_of(site); }

class Counter {
 public:
  Counter(const Graph& graph, double context) : graph_(graph), context_(context) {}

  OperationCount count(const Node& node) const {
    const int in = node.in.empty() ? 16 : bits_of(graph_.site(node.in[0]));
    switch (node.op) {
      case Op::kLinear: {
        const Site& weight = graph_.site(node.weight);
        const double products = double{1.0} * weight.rows * weight.cols;
        return {node.layer < 0 ? "head" : "linears", in, weight_bits(weight), products};
      }
      case Op::kScores:
      case Op::kContext:  // each head: head_dim products for each position
        return {"attention", in, bits_of(graph_.site(node.in[1])),
                context_ * node.heads * graph_.config.head_dim};
      default:
        return {"elementwise", bits_of(graph_.site(node.out)), 0, results(graph_.site(node.out))};
    }
  }

 private:
  double results(const Site& site) const {
    return site.role == Role::kScores ? context_ * graph_.config.num_heads : site.cols;
  }

  const Graph& graph_;
  const double context_;
};

}  // namespace

std::vector<OperationCount> count_operations(const Graph& graph, int context) {
  const Counter counter(graph, context);
  std::map<std::tuple<std::string, int, int>, double> sums;
  for (const Node& node : graph.nodes) {
    const OperationCount one = counter.count(node);
    sums[{one.kind, one.left, one.right}] += one.number;
  }
  std::vector<OperationCount> counts;
  for (const auto& [key, number] : sums) {
    counts.push_back({std::get<0>(key), std::get<1>(key), std::get<2>(key), number});
  }
  return counts;
}

}  // namespace qnpu
