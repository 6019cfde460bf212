#include "quant/learn/norm_learner.h"

namespace qnpu {

using torch::Tensor;

NormLearner::NormLearner(const FloatModel& model, const Graph& graph, Network& network)
    : network_(network) {
  for (const Node& node : graph.nodes) {
    if (node.op != Op::kRmsNorm) continue;
    const std::string& name = graph.site(node.weight).name;
    const Tensor start = model.weights.at(name).to(network.wide());
    norms_.push_back({node.weight, name, start, ScaleVector(torch::ones_like(start))});
  }
  share();
}

Tensor NormLearner::gamma(const Norm& norm) const {
  return norm.start * norm.factor.scale(norm.start.scalar_type());
}

// Leaves without gradients yet.
void NormLearner::share() {
  for (const Norm& norm : norms_) {
    network_.gammas[norm.site] = gamma(norm).detach().requires_grad_(true);
  }
}

std::vector<Tensor> NormLearner::gradients() const {
  std::vector<Tensor> all;
  for (const Norm& norm : norms_) {
    const Tensor& gradient = network_.gammas.at(norm.site).grad();
    if (gradient.defined()) all.push_back(gradient);
  }
  return all;
}

void NormLearner::step(const ScaleRule& rule) {
  for (Norm& norm : norms_) {
    const Tensor leaf = network_.gammas.at(norm.site);
    if (!leaf.grad().defined()) continue;
    const Tensor gradient = (leaf.grad() * leaf.detach()).to(torch::kFloat64);
    step_scales(norm.factor, gradient, torch::ones_like(gradient), rule);
  }
  share();
}

void NormLearner::finish(FloatModel& model) const {
  for (const Norm& norm : norms_) model.weights.at(norm.name) = gamma(norm).to(torch::kFloat32);
}

std::vector<std::pair<std::string, Tensor>> NormLearner::values() const {
  std::vector<std::pair<std::string, Tensor>> all;
  for (const Norm& norm : norms_) all.emplace_back(norm.name, norm.factor.log_scale);
  return all;
}

std::vector<std::pair<std::string, Tensor>> NormLearner::state() const {
  std::vector<std::pair<std::string, Tensor>> all;
  for (const Norm& norm : norms_) {
    all.emplace_back(norm.name + ".m", norm.factor.m);
    all.emplace_back(norm.name + ".v", norm.factor.v);
  }
  return all;
}

}  // namespace qnpu
