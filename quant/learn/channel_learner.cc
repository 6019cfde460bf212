#include "quant/learn/channel_learner.h"

#include "base/status.h"

namespace qnpu {

using torch::Tensor;

ChannelLearner::ChannelLearner(const FloatModel& source, const Graph& graph, Network& network)
    : source_(source), graph_(graph), network_(network) {
  for (int layer = 0; layer < graph.config.num_layers; ++layer) {
    for (const ChannelPair& pair : channel_pairs()) {
      const std::string divider = in_layer(layer, pair.divider);
      const Tensor& weight = source.weights.at(divider + ".weight");
      for (const char* reader : pair.readers) by_reader_[in_layer(layer, reader)] = all_.size();
      if (!pair.norm) by_divider_[divider] = all_.size();
      const Tensor ones = torch::ones({weight.size(0)}, weight.options().dtype(torch::kFloat64));
      all_.push_back({layer, &pair, divider, pair.norm ? graph.find_site(divider + ".weight") : -1,
                      pair.norm ? weight.to(network.wide()) : Tensor(), ScaleVector(ones),
                      torch::zeros_like(ones)});
    }
  }
  share();
}

Tensor ChannelLearner::divided_gamma(const Channels& channels) const {
  return channels.gamma / channels.factor.scale(network_.wide());
}

// Leaves without gradients yet.
void ChannelLearner::share() {
  for (const Channels& channels : all_) {
    if (channels.norm >= 0) {
      network_.gammas[channels.norm] = divided_gamma(channels).requires_grad_(true);
    } else {
      network_.divisors[channels.divider] =
          channels.factor.scale(network_.wide()).requires_grad_(true);
    }
  }
}

Tensor ChannelLearner::weights(const LinearGroup& group) const {
  std::vector<Tensor> parts;
  for (const LinearPart& linear : group.parts) {
    const std::string& name = graph_.nodes[linear.node].name;
    const Tensor w = source_.weights.at(name + ".weight").to(network_.wide());
    const Tensor read = all_[by_reader_.at(name)].factor.scale(network_.wide());
    parts.push_back(w * to_columns(read, w.size(1), graph_.config.head_dim));
    const auto divided = by_divider_.find(name);
    if (divided == by_divider_.end()) continue;
    parts.back().div_(all_[divided->second].factor.scale(network_.wide()).unsqueeze(1));
  }
  return parts.size() == 1 ? parts.front() : torch::cat(parts);
}

Tensor ChannelLearner::row_divisors(const LinearGroup& group) const {
  Tensor divisors =
      torch::ones({group.codes.size(0)}, group.codes.options().dtype(torch::kFloat64));
  for (const LinearPart& linear : group.parts) {
    const auto divided = by_divider_.find(graph_.nodes[linear.node].name);
    if (divided == by_divider_.end()) continue;
    divisors.narrow(0, linear.first, linear.rows)
        .copy_(all_[divided->second].factor.scale(torch::kFloat64));
  }
  return divisors;
}

void ChannelLearner::pull_back(const LinearGroup& group, const Tensor& products,
                               const Tensor& rows) {
  for (const LinearPart& linear : group.parts) {
    const std::string& name = graph_.nodes[linear.node].name;
    const auto part = [&](const Tensor& t) { return t.narrow(0, linear.first, linear.rows); };
    Tensor& read = all_[by_reader_.at(name)].gradient;
    read.add_(to_channels(part(products).sum(0), read.numel(), graph_.config.head_dim));
    const auto divided = by_divider_.find(name);
    if (divided != by_divider_.end()) all_[divided->second].gradient.sub_(part(rows));
  }
}

std::vector<Tensor> ChannelLearner::gradients() {
  const torch::NoGradGuard no_grad;
  std::vector<Tensor> gradients;
  for (Channels& channels : all_) {
    const bool norm = channels.norm >= 0;
    Tensor leaf = norm ? network_.gammas.at(channels.norm) : network_.divisors.at(channels.divider);
    if (leaf.grad().defined()) {
      channels.gradient.add_(leaf.grad() * leaf, norm ? -1.0 : 1.0);
      leaf.mutable_grad() = Tensor();  // counted
    }
    gradients.push_back(channels.gradient);
  }
  return gradients;
}

void ChannelLearner::step(const ScaleRule& rule) {
  for (Channels& channels : all_) {
    const Tensor factor = torch::ones({1}, channels.gradient.options());
    step_scales(channels.factor, channels.gradient, factor, rule);
    channels.gradient.zero_();
  }
  share();
}

void ChannelLearner::finish(FloatModel& model) const {
  for (const Channels& channels : all_) {
    divide_channels(model, channels.layer, *channels.pair, channels.factor.scale(torch::kFloat64));
  }
}

std::vector<std::pair<std::string, Tensor>> ChannelLearner::values() const {
  std::vector<std::pair<std::string, Tensor>> all;
  for (const Channels& channels : all_) {
    all.emplace_back(channels.divider + ".channel_scale", channels.factor.log_scale);
  }
  return all;
}

std::vector<std::pair<std::string, Tensor>> ChannelLearner::state() const {
  std::vector<std::pair<std::string, Tensor>> all;
  for (const Channels& channels : all_) {
    all.emplace_back(channels.divider + ".channel_scale.m", channels.factor.m);
    all.emplace_back(channels.divider + ".channel_scale.v", channels.factor.v);
  }
  return all;
}

}  // namespace qnpu
