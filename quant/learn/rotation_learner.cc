#include "quant/learn/rotation_learner.h"

#include "base/status.h"
#include "quant/learn/cayley.h"

namespace qnpu {
namespace {

using torch::Tensor;

constexpr double kDrift = 1e-7;  // beyond it a matrix is made orthogonal again

// Adds to a leaf's gradient.
void add_gradient(Tensor& leaf, const Tensor& gradient) {
  Tensor& sum = leaf.mutable_grad();
  sum = sum.defined() ? sum.add_(gradient) : gradient.clone();
}

}  // namespace

RotationLearner::RotationLearner(const FloatModel& source, const Graph& graph, Network& network,
                                 const Rotations& start)
    : source_(source), graph_(graph), network_(network) {
  const torch::Device device = device_of(source);
  if (start.r1.defined()) rotations_.r1 = start.r1.to(device);
  for (const Tensor& r2 : start.r2) rotations_.r2.push_back(r2.to(device));
  const auto zeros = [](const Tensor& r) { return torch::zeros_like(r); };
  if (rotations_.r1.defined()) momentum_.push_back(zeros(rotations_.r1));
  for (const Tensor& r2 : rotations_.r2) momentum_.push_back(zeros(r2));
  share();
}

// Leaves of the network's precision, without gradients yet.
void RotationLearner::share() {
  const auto leaf = [&](const Tensor& r) {
    return r.to(network_.wide()).detach().clone().requires_grad_(true);
  };
  if (rotations_.r1.defined()) network_.r1 = leaf(rotations_.r1);
  network_.r2.clear();
  for (const Tensor& r2 : rotations_.r2) network_.r2.push_back(leaf(r2));
}

RotationLearner::Part RotationLearner::part_of(const LinearPart& linear) const {
  const Node& node = graph_.nodes[linear.node];
  const bool writes = node.name.ends_with("o_proj") || node.name.ends_with("down_proj");
  return {node.name,
          node.layer,
          network_.r1.defined() && !writes,
          network_.r1.defined() && writes,
          !network_.r2.empty() && node.name.ends_with("v_proj"),
          !network_.r2.empty() && node.name.ends_with("o_proj")};
}

Tensor RotationLearner::weights(const LinearGroup& group) {
  const torch::NoGradGuard no_grad;
  std::vector<Tensor> parts;
  for (const LinearPart& linear : group.parts) parts.push_back(rotated(part_of(linear)));
  return parts.size() == 1 ? parts.front() : torch::cat(parts);
}

Tensor RotationLearner::rotated(const Part& part) const {
  Tensor w = source_.weights.at(part.name + ".weight").to(network_.wide());
  const int64_t n = w.size(0), k = w.size(1), size = graph_.config.head_dim;
  if (part.reads) w = torch::matmul(w, r1());
  if (part.writes) w = torch::matmul(r1().t(), w);
  if (part.values) w = torch::matmul(r2(part.layer).t(), w.view({-1, size, k})).view({n, k});
  if (part.context) w = torch::matmul(w.reshape({-1, size}), r2(part.layer)).view({n, k});
  return w;
}

void RotationLearner::pull_back(const LinearGroup& group, const Tensor& gradient) {
  const torch::NoGradGuard no_grad;
  for (const LinearPart& linear : group.parts) {
    pull_back(part_of(linear), gradient.narrow(0, linear.first, linear.rows));
  }
}

void RotationLearner::pull_back(const Part& part, const Tensor& gradient) {
  const Tensor w = source_.weights.at(part.name + ".weight").to(network_.wide());
  const int64_t n = w.size(0), k = w.size(1), size = graph_.config.head_dim;
  Tensor g = gradient;
  if (part.values) {
    const Tensor a = (part.reads ? torch::matmul(w, r1()) : w).view({-1, size, k});
    const Tensor heads = g.view({-1, size, k});
    add_gradient(network_.r2[part.layer], torch::matmul(a, heads.transpose(1, 2)).sum(0));
    g = torch::matmul(r2(part.layer), heads).view({n, k});
  }
  if (part.context) {
    const Tensor b = part.writes ? torch::matmul(r1().t(), w) : w;
    const Tensor heads = g.reshape({-1, size});
    add_gradient(network_.r2[part.layer], torch::matmul(b.reshape({-1, size}).t(), heads));
    g = torch::matmul(heads, r2(part.layer).t()).view({n, k});
  }
  if (part.reads) add_gradient(network_.r1, torch::matmul(w.t(), g));
  if (part.writes) add_gradient(network_.r1, torch::matmul(w, g.t()));
}

std::vector<Tensor> RotationLearner::gradients() {
  std::vector<Tensor> all;
  const auto take = [&](Tensor& leaf) {
    Tensor& sum = leaf.mutable_grad();
    if (!sum.defined()) sum = torch::zeros_like(leaf);
    all.push_back(sum);
  };
  if (network_.r1.defined()) take(network_.r1);
  for (Tensor& r2 : network_.r2) take(r2);
  return all;
}

void RotationLearner::step(double rate, double decay) {
  const torch::NoGradGuard no_grad;
  size_t next = 0;
  const auto turn = [&](Tensor& r, const Tensor& leaf) {
    const Tensor gradient =
        leaf.grad().defined() ? leaf.grad().to(torch::kFloat64) : torch::zeros_like(r);
    cayley_step(r, momentum_[next++], gradient, rate, decay);
    const double drift = orthogonality_error(r);
    largest_drift_.clamp_min_(drift);
    if (drift > kDrift) r = orthogonalised(r);
  };
  if (rotations_.r1.defined()) turn(rotations_.r1, network_.r1);
  for (size_t l = 0; l < rotations_.r2.size(); ++l) turn(rotations_.r2[l], network_.r2[l]);
  share();
}

Rotations RotationLearner::result() const {
  Rotations result;
  if (rotations_.r1.defined()) result.r1 = orthogonalised(rotations_.r1);
  for (const Tensor& r2 : rotations_.r2) result.r2.push_back(orthogonalised(r2));
  return result;
}

std::vector<std::pair<std::string, Tensor>> RotationLearner::state() const {
  std::vector<std::pair<std::string, Tensor>> all;
  if (rotations_.r1.defined()) all.emplace_back("r1", rotations_.r1);
  for (size_t l = 0; l < rotations_.r2.size(); ++l) {
    all.emplace_back(fmt::format("r2.{}", l), rotations_.r2[l]);
  }
  for (size_t i = 0; i < momentum_.size(); ++i) {
    all.emplace_back(fmt::format("rotation_momentum.{}", i), momentum_[i]);
  }
  all.emplace_back("largest_drift", largest_drift_);
  return all;
}

void RotationLearner::restored() { share(); }

}  // namespace qnpu
