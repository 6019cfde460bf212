#include "quant/learn/parameters.h"

#include <cmath>

#include "base/status.h"
#include "quant/ranges.h"
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

void append(NamedTensors& all, const NamedTensors& more) {
  all.insert(all.end(), more.begin(), more.end());
}

}  // namespace

Parameters::Parameters(FloatModel& student, Graph& graph, Network& network, const LearnSpec& spec,
                       const Rotations& rotations, const Workers& workers)
    : student_(student), graph_(graph), network_(network), spec_(spec), workers_(workers) {
  const torch::NoGradGuard no_grad;
  if (spec.rotations) rotations_.emplace(student, graph, network, rotations);
  if (spec.norms) norms_.emplace(student, graph, network);
  if (spec.channel_scales) channels_.emplace(student, graph, network);
  groups_.resize(network.groups().size());
  Tensor inputs = torch::ones({static_cast<int64_t>(groups_.size())}, torch::kFloat64);
  for (size_t i = 0; i < groups_.size(); ++i) {
    const Grid& grid = network.groups()[i].input;
    if (grid.used()) inputs[static_cast<int64_t>(i)] = grid.scale;
    if (weights_wanted()) make(i);
  }
  inputs_ = ScaleVector(inputs);
  if (spec.output_scales) find_outputs();
}

void Parameters::find_outputs() {
  std::vector<double> scales;
  for (LinearGroup& group : network_.groups()) {
    group.learn_outputs = true;
    for (LinearPart& part : group.parts) {
      if (!part.out.used()) continue;
      learned_outputs_.push_back(&part);
      scales.push_back(part.out.scale);
    }
  }
  outputs_ = ScaleVector(torch::tensor(scales, torch::kFloat64));
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
  group.weights.qmax = torch::empty_like(linear.scale);
  for (const LinearPart& part : linear.parts) {
    const Site& site = graph_.site(graph_.nodes[part.node].weight);
    group.weights.qmax.narrow(0, part.first, part.rows).fill_(weight_qmax(site.spec.bitwidth));
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
  const ScaleGradients gradients = gather_gradients();
  if (spec_.input_scales) step_inputs(gradients.inputs, rates, tokens);
  if (spec_.output_scales) step_outputs(gradients.outputs, rates, tokens);
  if (norms_) norms_->step(rule(rates.scales));
  if (channels_) channels_->step(rule(rates.scales));
  for (LinearGroup& linear : network_.groups()) linear.input_scale_grad = 0.0;
  for (LinearPart* part : learned_outputs_) part->out_scale_grad = 0.0;
  if (!weights_wanted()) return;
  for (size_t i = 0; i < groups_.size() && spec_.weight_scales; ++i) {
    step_scale(i, gradients.weights[i], rates);
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

// d(loss) / d(log scale) of the inputs, as far as this worker read.
Tensor Parameters::input_gradients() const {
  Tensor gradients = torch::zeros_like(inputs_.log_scale);
  for (size_t i = 0; i < groups_.size(); ++i) {
    const LinearGroup& linear = network_.groups()[i];
    if (!linear.input.used()) continue;
    gradients[static_cast<int64_t>(i)] = linear.input_scale_grad * linear.input.scale;
  }
  return gradients;
}

Tensor Parameters::output_gradients() const {
  std::vector<double> gradients;
  for (const LinearPart* part : learned_outputs_) {
    gradients.push_back(part->out_scale_grad * part->out.scale);
  }
  return torch::tensor(gradients, torch::kFloat64);
}

// Of all workers; those of weights, rotations, norms and channels stay where they are. All are
// linear in what a worker gathered, so each worker forms its own before the sum.
Parameters::ScaleGradients Parameters::gather_gradients() {
  for (Group& group : groups_) {
    if (weights_move()) workers_.sum(group.weights.g);
  }
  ScaleGradients scales{{}, input_gradients(), output_gradients()};
  std::vector<Tensor> partial{scales.inputs, scales.outputs};
  for (size_t i = 0; i < groups_.size() && weights_wanted(); ++i) {
    if (spec_.weight_scales) {
      scales.weights.push_back(scale_gradients(groups_[i].weights, !spec_.weights));
      if (!weights_move()) partial.push_back(scales.weights.back());  // else it comes from sums
    }
    if (rotations_ || channels_) pull_back(i);
  }
  if (rotations_) {
    for (const Tensor& gradient : rotations_->gradients()) partial.push_back(gradient);
  }
  if (norms_) {
    for (const Tensor& gradient : norms_->gradients()) partial.push_back(gradient);
  }
  if (channels_) {
    for (const Tensor& gradient : channels_->gradients()) partial.push_back(gradient);
  }
  workers_.sum(partial);
  return scales;
}

// LSQ's factor has N = all values of the step that share the scale.
void Parameters::step_inputs(const Tensor& gradients, const Rates& rates, int64_t tokens) {
  Tensor factor = torch::ones_like(gradients);
  for (size_t i = 0; i < groups_.size(); ++i) {
    const LinearGroup& linear = network_.groups()[i];
    if (!linear.input.used()) continue;
    const double count = static_cast<double>(tokens) * linear.codes.size(1);
    factor[static_cast<int64_t>(i)] = 1.0 / std::sqrt(count * linear.input.high);
  }
  step_scales(inputs_, gradients, factor, rule(rates.scales));
  share_inputs();
}

void Parameters::share_inputs() {
  const Tensor scales = inputs_.scale(torch::kFloat32);
  for (size_t i = 0; i < groups_.size(); ++i) {
    Grid& grid = network_.groups()[i].input;
    if (grid.used()) grid.scale = scales.data_ptr<float>()[i];
  }
}

void Parameters::step_outputs(const Tensor& gradients, const Rates& rates, int64_t tokens) {
  Tensor factor = torch::ones_like(gradients);
  for (size_t i = 0; i < learned_outputs_.size(); ++i) {
    const LinearPart& part = *learned_outputs_[i];
    const double count = static_cast<double>(tokens) * part.rows;
    factor[static_cast<int64_t>(i)] = 1.0 / std::sqrt(count * part.out.high);
  }
  step_scales(outputs_, gradients, factor, rule(rates.scales));
  share_outputs();
}

// Into the sites too: what shares a scale with an output (the cache of v) is rounded by them.
void Parameters::share_outputs() {
  if (learned_outputs_.empty()) return;
  const Tensor scales = outputs_.scale(torch::kFloat32);
  for (size_t i = 0; i < learned_outputs_.size(); ++i) {
    LinearPart& part = *learned_outputs_[i];
    part.out.scale = scales.data_ptr<float>()[i];
    graph_.sites[graph_.nodes[part.node].out].qparams.scale = {part.out.scale};
  }
  apply_ties(graph_);
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

void Parameters::finish() {
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < groups_.size(); ++i) {
    const LinearGroup& linear = network_.groups()[i];
    if (linear.input.used()) graph_.sites[linear.site].qparams.scale = {linear.input.scale};
    if (spec_.weights) groups_[i].weights.x.mul_(linear.scale.unsqueeze(1));  // and the views of it
    if (!weights_wanted() || !spec_.quantize_weights) continue;
    const Tensor scale = linear.scale.cpu();
    for (const LinearPart& part : linear.parts) {
      const float* rows = scale.data_ptr<float>() + part.first;
      graph_.sites[graph_.nodes[part.node].weight].qparams.scale.assign(rows, rows + part.rows);
    }
  }
  if (norms_) norms_->finish(student_);
  if (channels_) channels_->finish(student_);
  if (rotations_) rotate(student_, rotations_->result());
}

// What is learned, but for weights.
NamedTensors Parameters::values() const {
  NamedTensors all = rotations_ ? rotations_->state() : NamedTensors{};
  if (norms_) append(all, norms_->values());
  if (channels_) append(all, channels_->values());
  all.emplace_back("inputs", inputs_.log_scale);
  if (spec_.output_scales) all.emplace_back("outputs", outputs_.log_scale);
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
  append(all, {{"inputs.m", inputs_.m}, {"inputs.v", inputs_.v}});
  if (spec_.output_scales) append(all, {{"outputs.m", outputs_.m}, {"outputs.v", outputs_.v}});
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
  share_inputs();
  share_outputs();
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
