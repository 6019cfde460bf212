// One batch of sequences through student and teacher: loss, and gradients into the student's
// LinearGroups. Forward keeps each layer's input only; backward computes one layer again at a time.
#pragma once

#include "model/recipe.h"
#include "quant/learn/loss.h"
#include "quant/learn/network.h"
#include "quant/tensor.h"

namespace qnpu {

class Pass {
 public:
  // References must stay alive. The teacher is used by all but kCrossEntropy.
  Pass(Network& student, Network& teacher, Loss loss)
      : student_(student), teacher_(teacher), loss_(loss) {}

  // tokens [B, T] int64. Loss only.
  LossResult forward(const torch::Tensor& tokens) { return run(tokens, 0.0); }
  // Adds the gradients of factor * loss. dhidden of the result is that of the residual stream that
  // enters the first layer.
  LossResult backward(const torch::Tensor& tokens, double factor);

  // Cross entropy per token of the teacher.
  LossResult teacher_cross_entropy(const torch::Tensor& tokens);

 private:
  LossResult run(const torch::Tensor& tokens, double factor);
  LossResult loss(const torch::Tensor& hidden, const torch::Tensor& tokens, double factor);

  Network& student_;
  Network& teacher_;
  Loss loss_;
};

}  // namespace qnpu
