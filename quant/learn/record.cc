#include "quant/learn/record.h"

#include <torch/csrc/autograd/functions/utils.h>

#include <memory>

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

}  // namespace

void record(Tensors& outputs, const Tensors& inputs, Backward backward) {
  bool needed = false;
  for (const torch::Tensor& input : inputs) needed = needed || input.requires_grad();
  if (!torch::GradMode::is_enabled() || !needed) return;
  const std::shared_ptr<LambdaNode> node(new LambdaNode(std::move(backward)),
                                         torch::autograd::deleteNode);
  node->set_next_edges(torch::autograd::collect_next_edges(inputs));
  for (torch::Tensor& output : outputs) torch::autograd::set_history(output, node);
}

torch::Tensor record(torch::Tensor output, const Tensors& inputs, Backward backward) {
  Tensors outputs{std::move(output)};
  record(outputs, inputs, std::move(backward));
  return outputs.front();
}

}  // namespace qnpu
