#include "quant/learn/range_learner.h"

#include <cmath>

#include "quant/ranges.h"

namespace qnpu {

using torch::Tensor;

RangeLearner::RangeLearner(Graph& graph, Network& network, const LearnSpec& spec)
    : graph_(graph),
      network_(network),
      learn_inputs_(spec.input_scales),
      learn_outputs_(spec.output_scales) {
  std::vector<double> inputs;
  for (const LinearGroup& group : network_.groups()) {
    inputs.push_back(group.input.used() ? group.input.scale : 1.0);
  }
  inputs_ = ScaleVector(torch::tensor(inputs, torch::kFloat64));
  if (learn_outputs_) find_outputs();
}

void RangeLearner::find_outputs() {
  std::vector<double> scales;
  for (LinearGroup& group : network_.groups()) {
    group.learn_outputs = true;
    for (LinearPart& part : group.parts) {
      if (!part.out.used()) continue;
      parts_.push_back(&part);
      scales.push_back(part.out.scale);
    }
  }
  outputs_ = ScaleVector(torch::tensor(scales, torch::kFloat64));
}

std::vector<Tensor> RangeLearner::gradients() {
  std::vector<double> inputs, outputs;
  for (LinearGroup& group : network_.groups()) {
    inputs.push_back(group.input.used() ? group.input_scale_grad * group.input.scale : 0.0);
    group.input_scale_grad = 0.0;
  }
  for (LinearPart* part : parts_) {
    outputs.push_back(part->out_scale_grad * part->out.scale);
    part->out_scale_grad = 0.0;
  }
  d_inputs_ = torch::tensor(inputs, torch::kFloat64);
  d_outputs_ = torch::tensor(outputs, torch::kFloat64);
  return {d_inputs_, d_outputs_};
}

void RangeLearner::step(const ScaleRule& rule, int64_t tokens) {
  if (learn_inputs_) step_inputs(rule, tokens);
  if (learn_outputs_) step_outputs(rule, tokens);
}

// LSQ's factor has N = all values of the step that share the scale.
void RangeLearner::step_inputs(const ScaleRule& rule, int64_t tokens) {
  Tensor factor = torch::ones_like(d_inputs_);
  for (size_t i = 0; i < network_.groups().size(); ++i) {
    const LinearGroup& linear = network_.groups()[i];
    if (!linear.input.used()) continue;
    const double count = static_cast<double>(tokens) * linear.codes.size(1);
    factor[static_cast<int64_t>(i)] = 1.0 / std::sqrt(count * linear.input.high);
  }
  step_scales(inputs_, d_inputs_, factor, rule);
  share_inputs();
}

void RangeLearner::step_outputs(const ScaleRule& rule, int64_t tokens) {
  Tensor factor = torch::ones_like(d_outputs_);
  for (size_t i = 0; i < parts_.size(); ++i) {
    const double count = static_cast<double>(tokens) * parts_[i]->rows;
    factor[static_cast<int64_t>(i)] = 1.0 / std::sqrt(count * parts_[i]->out.high);
  }
  step_scales(outputs_, d_outputs_, factor, rule);
  share_outputs();
}

void RangeLearner::share_inputs() {
  const Tensor scales = inputs_.scale(torch::kFloat32);
  for (size_t i = 0; i < network_.groups().size(); ++i) {
    Grid& grid = network_.groups()[i].input;
    if (grid.used()) grid.scale = scales.data_ptr<float>()[i];
  }
}

// Into the sites too: what shares a scale with an output (the cache of v) is rounded by them.
void RangeLearner::share_outputs() {
  if (parts_.empty()) return;
  const Tensor scales = outputs_.scale(torch::kFloat32);
  for (size_t i = 0; i < parts_.size(); ++i) {
    parts_[i]->out.scale = scales.data_ptr<float>()[i];
    graph_.sites[graph_.nodes[parts_[i]->node].out].qparams.scale = {parts_[i]->out.scale};
  }
  apply_ties(graph_);
}

void RangeLearner::finish() {
  for (const LinearGroup& linear : network_.groups()) {
    if (linear.input.used()) graph_.sites[linear.site].qparams.scale = {linear.input.scale};
  }
}

std::vector<std::pair<std::string, Tensor>> RangeLearner::values() const {
  std::vector<std::pair<std::string, Tensor>> all = {{"inputs", inputs_.log_scale}};
  if (learn_outputs_) all.emplace_back("outputs", outputs_.log_scale);
  return all;
}

std::vector<std::pair<std::string, Tensor>> RangeLearner::state() const {
  std::vector<std::pair<std::string, Tensor>> all = {{"inputs.m", inputs_.m},
                                                     {"inputs.v", inputs_.v}};
  if (!learn_outputs_) return all;
  all.emplace_back("outputs.m", outputs_.m);
  all.emplace_back("outputs.v", outputs_.v);
  return all;
}

void RangeLearner::restored() {
  share_inputs();
  share_outputs();
}

}  // namespace qnpu
