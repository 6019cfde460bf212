#include "quant/learn/record.h"

#include <torch/csrc/autograd/functions/utils.h>

#include <memory>
#include <type_traits>

namespace qnpu {
namespace {

class LambdaNode : public torch::autograd::Node {
 public:
  explicit LambdaNode(Backward backward) : backward_(std::move(backward)) {}
  Tensors apply(Tensors&& gradients) override {
    const torch::NoGradGuard no_grad;
    return backward_(std::move(gradients));
  }
  void release_variables() override { backward_ = nullptr; }

 private:
  Backward backward_;
};

// Nodes are held by shared pointers that call deleteNode, or count for themselves (from
// libtorch 2.15 at the latest); what is not there is not looked up.
template <typename Node>
auto make_node(Backward backward) {
  if constexpr (std::is_base_of_v<c10::intrusive_ptr_target, Node>) {
    return c10::make_intrusive<Node>(std::move(backward));
  } else {
    return std::shared_ptr<Node>(new Node(std::move(backward)),
                                 [](Node* node) { deleteNode(node); });
  }
}

}  // namespace

void record(Tensors& outputs, const Tensors& inputs, Backward backward) {
  bool needed = false;
  for (const torch::Tensor& input : inputs) needed = needed || input.requires_grad();
  if (!torch::GradMode::is_enabled() || !needed) return;
  const auto node = make_node<LambdaNode>(std::move(backward));
  node->set_next_edges(torch::autograd::collect_next_edges(inputs));
  for (torch::Tensor& output : outputs) torch::autograd::set_history(output, node);
}

torch::Tensor record(torch::Tensor output, const Tensors& inputs, Backward backward) {
  Tensors outputs{std::move(output)};
  record(outputs, inputs, std::move(backward));
  return outputs.front();
}

}  // namespace qnpu
