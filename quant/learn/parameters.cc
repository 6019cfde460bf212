#include "quant/learn/parameters.h"

#include <algorithm>
#include <cmath>

#include "base/status.h"
#include "quant/weights.h"

namespace qnpu {

using torch::Tensor;

namespace {

// A weight that rounds to another integer than the nearest one to its wish lies at the edge of its
// bin, with thousands of others: all would cross it together at the first steps. So learned weights
// begin well inside.
constexpr double kReach = 0.25;

Tensor well_inside(const Tensor& x) {
  const Tensor integers = x.round();
  return integers + (x - integers).clamp(-kReach, kReach);
}

// The kind that a value of this name counts for in movement(); empty: none.
std::string kind_of(const std::string& name, const LearnSpec& spec) {
  const auto if_learned = [](bool learned, const char* kind) { return learned ? kind : ""; };
  if (name == "inputs") return if_learned(spec.input_scales, "input_scales");
  if (name == "outputs") return if_learned(spec.output_scales, "output_scales");
  if (name.ends_with(".weight_scale")) return if_learned(spec.weight_scales, "weight_scales");
  if (name.ends_with(".channel_scale")) return "channel_scales";
  if (name == "r1" || name.starts_with("r2.")) return "rotations";
  if (name.starts_with("rotation_momentum.") || name == "largest_drift") return "";
  return "norms";
}

void append(NamedTensors& all, const NamedTensors& more) {
  all.insert(all.end(), more.begin(), more.end());
}

}  // namespace

Parameters::Parameters(FloatModel& student, Graph& graph, Network& network, const LearnSpec& spec,
                       const Rotations& rotations, const Workers& workers)
    : student_(student),
      graph_(graph),
      network_(network),
      spec_(spec),
      workers_(workers),
      ranges_(graph, network, spec) {
  const torch::NoGradGuard no_grad;
  if (spec.rotations) rotations_.emplace(student, graph, network, rotations);
  if (spec.norms) norms_.emplace(student, graph, network);
  if (spec.channel_scales) channels_.emplace(student, graph, network);
  groups_.resize(network.groups().size());
  for (size_t i = 0; i < groups_.size() && weights_wanted(); ++i) make(i);
}

bool Parameters::weights_wanted() const {
  return spec_.weights || spec_.weight_scales || spec_.rotations || spec_.channel_scales;
}

// The group's weights in units of their scales (ones if they are not rounded). The network chose
// scales for weights that are not rotated yet: here they are.
void Parameters::make(size_t index) {
  LinearGroup& linear = network_.groups()[index];
  Group& group = groups_[index];
  const Tensor weights = fixed_weights(index);
  if (rotations_ && spec_.quantize_weights) {
    linear.scale = network_.stacked_scales(linear, weights.to(torch::kFloat32)).to(network_.wide());
  }
  group.scale = ScaleVector(linear.scale);
  group.weights.x = weights / linear.scale.unsqueeze(1);
  if (spec_.weights) group.weights.x = well_inside(group.weights.x);
  group.weights.g = torch::zeros_like(group.weights.x);
  group.weights.codes = linear.codes;
  linear.codes_grad = group.weights.g;
  if (weights_move()) {
    group.m = torch::zeros_like(group.weights.x);
    group.v = torch::zeros_like(group.weights.x);
  }
  group.weights.qmin = torch::empty_like(linear.scale);
  group.weights.qmax = torch::empty_like(linear.scale);
  for (const LinearPart& part : linear.parts) {
    const Site& site = graph_.site(graph_.nodes[part.node].weight);
    const IntegerRange range = weight_range(site.spec);
    group.weights.qmin.narrow(0, part.first, part.rows).fill_(range.qmin);
    group.weights.qmax.narrow(0, part.first, part.rows).fill_(range.qmax);
    if (spec_.weights) {
      student_.weights.at(site.name) = group.weights.x.narrow(0, part.first, part.rows);
    }
  }
  share(index);
}

Tensor Parameters::fixed_weights(size_t index) {
  const LinearGroup& linear = network_.groups()[index];
  if (rotations_) return rotations_->weights(linear);
  return channels_ ? channels_->weights(linear) : network_.stacked_weights(linear);
}

ScaleRule Parameters::rule(double rate) const {
  return {spec_.optimizer, rate, spec_.momentum, steps_};
}

void Parameters::step(const Rates& rates, int64_t tokens) {
  const torch::NoGradGuard no_grad;
  ++steps_;
  const std::vector<Tensor> weights = gather_gradients();
  ranges_.step(rule(rates.scales), tokens);
  if (norms_) norms_->step(rule(rates.scales));
  if (channels_) channels_->step(rule(rates.scales));
  if (!weights_wanted()) return;
  for (size_t i = 0; i < groups_.size() && spec_.weight_scales; ++i) {
    step_scale(i, weights[i], rates);
  }
  if (rotations_) rotations_->step(rates.rotations, spec_.momentum);
  for (size_t i = 0; i < groups_.size(); ++i) {
    if (spec_.weights) {
      step_weights(i, rates);
    } else {
      groups_[i].weights.g.zero_();
      share(i);
    }
  }
}

// Of all workers. All are linear in what a worker gathered, so each worker forms its own before the
// sum.
std::vector<Tensor> Parameters::gather_gradients() {
  for (Group& group : groups_) {
    if (weights_move()) workers_.sum(group.weights.g);
  }
  std::vector<Tensor> scales, partial = ranges_.gradients();
  for (size_t i = 0; i < groups_.size() && weights_wanted(); ++i) {
    if (spec_.weight_scales) {
      scales.push_back(scale_gradients(groups_[i].weights, !spec_.weights));
      if (!weights_move()) partial.push_back(scales.back());  // else it comes from sums
    }
    if (rotations_ || channels_) pull_back(i);
  }
  const auto add = [&](const std::vector<Tensor>& more) {
    partial.insert(partial.end(), more.begin(), more.end());
  };
  if (rotations_) add(rotations_->gradients());
  if (norms_) add(norms_->gradients());
  if (channels_) add(channels_->gradients());
  workers_.sum(partial);
  return scales;
}

// The new scale reaches the network in step_weights or share: until then x belongs to the old one.
void Parameters::step_scale(size_t index, const Tensor& gradients, const Rates& rates) {
  Group& group = groups_[index];
  const double count = static_cast<double>(group.weights.x.size(1));
  const Tensor factor = (count * group.weights.qmax.to(torch::kFloat64)).rsqrt();
  step_scales(group.scale, gradients, factor, rule(rates.scales));
}

// From the gradients of the integers to those of what makes the weights.
void Parameters::pull_back(size_t index) {
  Group& group = groups_[index];
  const LinearGroup& linear = network_.groups()[index];
  const Tensor rows = channels_ ? scale_gradients(group.weights, false) : Tensor();
  if (spec_.quantize_weights) mask_clipped(group.weights);
  if (rotations_) rotations_->pull_back(linear, group.weights.g / linear.scale.unsqueeze(1));
  if (channels_) channels_->pull_back(linear, group.weights.g * group.weights.x, rows);
}

void Parameters::step_weights(size_t index, const Rates& rates) {
  Group& group = groups_[index];
  if (!weights_move()) {
    group.weights.g.zero_();
    return share_scale(index);
  }
  AdamStep step;
  step.rate = static_cast<float>(rates.weights);
  step.correct_m = static_cast<float>(1.0 - std::pow(step.beta_m, steps_));
  step.correct_v = static_cast<float>(1.0 - std::pow(step.beta_v, steps_));
  adam_weights(group.weights, step, group.m, group.v);
  share_scale(index);
}

// Rows whose channels are divided keep their integers: it is their scales that are divided.
void Parameters::share_scale(size_t index) {
  LinearGroup& linear = network_.groups()[index];
  Tensor scale = groups_[index].scale.scale(torch::kFloat64);
  if (channels_) scale.div_(channels_->row_divisors(linear));
  linear.scale = scale.to(linear.scale.scalar_type());
}

// Scales and integers into the network. Fixed weights are divided by their new scales.
void Parameters::share(size_t index) {
  Group& group = groups_[index];
  LinearGroup& linear = network_.groups()[index];
  share_scale(index);
  if (!spec_.weights) group.weights.x.copy_(fixed_weights(index)).div_(linear.scale.unsqueeze(1));
  if (spec_.quantize_weights) {
    round_weights(group.weights);
  } else {
    group.weights.codes.copy_(group.weights.x);
  }
}

// A linear whose integers are all 0 gets the scale 0, as one of zeros does that is not learned: its
// ones were only what learning had to begin with.
void Parameters::finish() {
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < groups_.size(); ++i) {
    const LinearGroup& linear = network_.groups()[i];
    if (spec_.weights) groups_[i].weights.x.mul_(linear.scale.unsqueeze(1));  // and the views of it
    if (!weights_wanted() || !spec_.quantize_weights) continue;
    const Tensor scale = linear.scale.cpu();
    for (const LinearPart& part : linear.parts) {
      const float* rows = scale.data_ptr<float>() + part.first;
      std::vector<float>& learned = graph_.sites[graph_.nodes[part.node].weight].qparams.scale;
      learned.assign(rows, rows + part.rows);
      const bool silent = !linear.codes.narrow(0, part.first, part.rows).any().item<bool>();
      if (silent) std::fill(learned.begin(), learned.end(), 0.0f);
    }
  }
  ranges_.finish();
  if (norms_) norms_->finish(student_);
  if (channels_) channels_->finish(student_);
  if (rotations_) rotate(student_, rotations_->result());
}

// What is learned, but for weights.
NamedTensors Parameters::values() const {
  NamedTensors all = rotations_ ? rotations_->state() : NamedTensors{};
  if (norms_) append(all, norms_->values());
  if (channels_) append(all, channels_->values());
  append(all, ranges_.values());
  for (size_t i = 0; i < groups_.size() && weights_wanted(); ++i) {
    const std::string name = graph_.site(network_.groups()[i].site).name;
    all.emplace_back(name + ".weight_scale", groups_[i].scale.log_scale);
  }
  return all;
}

NamedTensors Parameters::state() const {
  NamedTensors all = values();
  if (norms_) append(all, norms_->state());
  if (channels_) append(all, channels_->state());
  append(all, ranges_.state());
  for (size_t i = 0; i < groups_.size() && weights_wanted(); ++i) {
    const Group& group = groups_[i];
    const std::string name = graph_.site(network_.groups()[i].site).name;
    all.emplace_back(name + ".weight_scale.m", group.scale.m);
    all.emplace_back(name + ".weight_scale.v", group.scale.v);
    if (!spec_.weights) continue;
    all.emplace_back(name + ".weights", group.weights.x);
    if (!weights_move()) continue;
    all.emplace_back(name + ".weights.m", group.m);
    all.emplace_back(name + ".weights.v", group.v);
  }
  return all;
}

void Parameters::restored(int steps) {
  const torch::NoGradGuard no_grad;
  steps_ = steps;
  if (rotations_) rotations_->restored();
  if (norms_) norms_->restored();
  if (channels_) channels_->restored();
  ranges_.restored();
  for (size_t i = 0; i < groups_.size() && weights_wanted(); ++i) share(i);
}

Parameters::Snapshot Parameters::snapshot() const {
  Snapshot snapshot;
  for (const auto& [name, tensor] : values()) snapshot.others.emplace_back(name, tensor.clone());
  for (const Group& group : groups_) {
    if (spec_.weights) snapshot.integers.push_back(group.weights.codes.to(torch::kInt8));
  }
  return snapshot;
}

std::map<std::string, double> Parameters::movement(const Snapshot& start) const {
  const torch::NoGradGuard no_grad;
  std::map<std::string, double> squares, counts;
  const NamedTensors now = values();
  for (size_t i = 0; i < now.size(); ++i) {
    const std::string kind = kind_of(now[i].first, spec_);
    if (kind.empty()) continue;
    const Tensor change = (now[i].second - start.others[i].second).to(torch::kFloat64);
    squares[kind] += torch::nan_to_num(change).square().sum().item<double>();
    counts[kind] += static_cast<double>(kind == "rotations" ? change.size(0) : change.numel());
  }
  for (auto& [kind, sum] : squares) sum = std::sqrt(sum / counts[kind]);
  return squares;
}

void Parameters::restore(const Snapshot& snapshot) {
  const torch::NoGradGuard no_grad;
  const NamedTensors now = values();
  for (size_t i = 0; i < now.size(); ++i) {
    Tensor target = now[i].second;
    target.copy_(snapshot.others[i].second);
  }
  for (size_t i = 0; i < snapshot.integers.size(); ++i) {
    groups_[i].weights.x.copy_(snapshot.integers[i]);
  }
  restored(steps_);
}

}  // namespace qnpu
