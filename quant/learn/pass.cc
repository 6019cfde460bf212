#include "quant/learn/pass.h"

#include <vector>

namespace qnpu {
namespace {

using torch::Tensor;

// Inputs of the layers, and at the end what leaves the last one.
std::vector<Tensor> walk(Network& network, const Tensor& tokens) {
  const torch::NoGradGuard no_grad;
  std::vector<Tensor> hidden{network.embed(tokens)};
  for (int l = 0; l < network.layers(); ++l) {
    hidden.push_back(network.layer(l, hidden.back(), tokens.size(0)));
  }
  return hidden;
}

// The last one only.
Tensor last_hidden(Network& network, const Tensor& tokens) {
  const torch::NoGradGuard no_grad;
  Tensor hidden = network.embed(tokens);
  for (int l = 0; l < network.layers(); ++l) hidden = network.layer(l, hidden, tokens.size(0));
  return network.head_input(hidden);
}

Tensor leaf(const Tensor& x) { return x.detach().requires_grad_(true); }

// The gradient of `in`; other leaves (rotations, norm weights) gather theirs.
Tensor pull_back(const Tensor& out, const Tensor& in, const Tensor& gradient) {
  out.backward(gradient);
  return in.grad();
}

}  // namespace

LossResult Pass::loss(const Tensor& hidden, const Tensor& tokens, double factor) {
  if (loss_ == Loss::kCrossEntropy) {
    return cross_entropy_loss(hidden, student_.head(), next_tokens(tokens), factor);
  }
  const Tensor teacher = last_hidden(teacher_, tokens);
  if (loss_ == Loss::kHidden) return hidden_loss(hidden, teacher, factor);
  return kl_loss(hidden, student_.head(), teacher, teacher_.head(), factor);
}

LossResult Pass::run(const Tensor& tokens, double factor) {
  return loss(last_hidden(student_, tokens), tokens, factor);
}

LossResult Pass::backward(const Tensor& tokens, double factor) {
  std::vector<Tensor> hidden = walk(student_, tokens);
  const Tensor end = leaf(hidden.back());
  hidden.pop_back();
  const Tensor x = student_.head_input(end);
  LossResult result = loss(x.detach(), tokens, factor);
  Tensor gradient = pull_back(x, end, result.dhidden);
  for (int l = student_.layers() - 1; l >= 0; --l) {
    const Tensor in = leaf(hidden.back());
    hidden.pop_back();
    gradient = pull_back(student_.layer(l, in, tokens.size(0)), in, gradient);
  }
  if (student_.r1.defined()) student_.embed(tokens).backward(gradient);
  result.dhidden = gradient;
  return result;
}

LossResult Pass::teacher_cross_entropy(const Tensor& tokens) {
  return cross_entropy_loss(last_hidden(teacher_, tokens), teacher_.head(), next_tokens(tokens),
                            0.0);
}

}  // namespace qnpu
