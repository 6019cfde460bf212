#include "quant/split.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <queue>

#include "base/status.h"
#include "quant/spill.h"

namespace qnpu {
namespace {

// Where most channels are tiny, all others look like outliers.
constexpr double kMostCopies = 64.0;  // of a channel
constexpr size_t kMostWidened = 2;    // times the width, before it is filled up
constexpr double kLeastEqualized = 0.25;
constexpr double kUneven = 0.2;  // the smallest and the largest copy's distance from equal ones

std::vector<float> to_vector(const torch::Tensor& maxima) {
  const torch::Tensor dense = maxima.to(torch::kCPU, torch::kFloat32).contiguous();
  return {dense.data_ptr<float>(), dense.data_ptr<float>() + dense.numel()};
}

double median(std::vector<float> values) {
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

int width(const std::vector<int>& copies) {
  return std::accumulate(copies.begin(), copies.end(), 0);
}

// As many as leave none above `most`.
std::vector<int> copies_of(const std::vector<float>& maxima, double most) {
  std::vector<int> copies;
  for (const float max : maxima) {
    copies.push_back(static_cast<int>(std::clamp(std::ceil(max / most), 1.0, kMostCopies)));
  }
  return copies;
}

// Adds copies until the width is a multiple: always to the channel whose copies are largest.
void fill_up(const std::vector<float>& maxima, int multiple, std::vector<int>& copies) {
  const auto share = [&](size_t j) { return maxima[j] / static_cast<float>(copies[j]); };
  const auto smaller = [&](size_t a, size_t b) {
    return share(a) != share(b) ? share(a) < share(b) : a > b;
  };
  std::priority_queue<size_t, std::vector<size_t>, decltype(smaller)> largest(smaller);
  for (size_t j = 0; j < copies.size(); ++j) largest.push(j);
  for (int total = width(copies); total % multiple != 0; ++total) {
    const size_t j = largest.top();
    largest.pop();
    ++copies[j];
    largest.push(j);
  }
}

// Of a channel of which a copy has the magnitudes `up` and `down`, in units of the medians.
double equalized(double up, double down) {
  return std::max(std::sqrt(std::max(up, down)), kLeastEqualized);
}

// [F] index of the channel that each new channel copies, and [F'] its factors.
struct Layout {
  torch::Tensor source;       // [F'] int64
  torch::Tensor up_factor;    // [F', 1]
  torch::Tensor down_factor;  // [1, F']
};

// Of copy i of m, so that all make 1.
double share_of(int i, int m) {
  if (m == 1) return 1.0;
  return (1.0 + kUneven * (2.0 * i / (m - 1) - 1.0)) / m;
}

Layout layout_of(const SplitPlan& plan, torch::Device device) {
  std::vector<int64_t> source;
  std::vector<float> up, down;
  for (size_t j = 0; j < plan.copies.size(); ++j) {
    for (int copy = 0; copy < plan.copies[j]; ++copy) {
      source.push_back(static_cast<int64_t>(j));
      up.push_back(static_cast<float>(share_of(copy, plan.copies[j]) / plan.balance[j]));
      down.push_back(static_cast<float>(plan.balance[j]));
    }
  }
  return {torch::tensor(source, torch::kInt64).to(device),
          torch::tensor(up).unsqueeze(1).to(device), torch::tensor(down).unsqueeze(0).to(device)};
}

}  // namespace

SplitPlan plan_split(const MlpMaxima& maxima, const SplitSpec& spec) {
  const std::vector<float> max = to_vector(maxima.down);
  const std::vector<float> up = to_vector(maxima.up);
  const double middle = median(max);
  SplitPlan plan{std::vector<int>(max.size(), 1), std::vector<double>(max.size(), 1.0)};
  double most = spec.ratio * middle;  // of a copy
  if (middle > 0.0) {
    plan.copies = copies_of(max, most);
    for (; width(plan.copies) > kMostWidened * max.size(); most *= 2) {
      plan.copies = copies_of(max, 2 * most);
    }
  }
  fill_up(max, spec.multiple, plan.copies);
  const double middle_up = median(up);
  if (!(middle > 0.0) || !(middle_up > 0.0)) return plan;
  for (size_t j = 0; j < max.size(); ++j) {
    const int m = plan.copies[j];
    plan.balance[j] = spec.equalize
                          ? equalized(up[j] / (m * middle_up), max[j] / (m * middle))
                          : std::clamp(max[j] / (m * most / spec.balance), 1.0, spec.balance);
  }
  return plan;
}

void split_mlp(FloatModel& model, int layer, const SplitPlan& plan) {
  const torch::NoGradGuard no_grad;
  const std::string mlp = fmt::format("layers.{}.mlp.", layer);
  const Layout layout = layout_of(plan, device_of(model));
  torch::Tensor& gate = model.weights.at(mlp + "gate_proj.weight");
  torch::Tensor& up = model.weights.at(mlp + "up_proj.weight");
  torch::Tensor& down = model.weights.at(mlp + "down_proj.weight");
  QNPU_ASSERT(gate.size(0) == static_cast<int64_t>(plan.copies.size()));
  replace(gate, gate.index_select(0, layout.source));
  replace(up, up.index_select(0, layout.source) * layout.up_factor);
  replace(down, (down.index_select(1, layout.source) * layout.down_factor).contiguous());
  std::vector<int>& sizes = model.config.intermediate_sizes;
  if (sizes.empty()) sizes.assign(model.config.num_layers, model.config.intermediate_size);
  sizes[static_cast<size_t>(layer)] = static_cast<int>(gate.size(0));
}

std::vector<int> split_sites(const Graph& graph) {
  std::vector<int> sites;
  for (int layer = 0; layer < graph.config.num_layers; ++layer) {
    sites.push_back(graph.find_site(fmt::format("layers.{}.mlp.up_proj.out", layer)));
    sites.push_back(graph.find_site(fmt::format("layers.{}.mlp.down_proj.in", layer)));
  }
  return sites;
}

void split_channels(FloatModel& model, const Graph& graph,
                    const std::map<int, torch::Tensor>& maxima, const SplitSpec& spec) {
  const std::vector<int> sites = split_sites(graph);
  for (int layer = 0; layer < model.config.num_layers; ++layer) {
    const size_t up = 2 * static_cast<size_t>(layer);
    split_mlp(model, layer, plan_split({maxima.at(sites[up]), maxima.at(sites[up + 1])}, spec));
  }
}

}  // namespace qnpu
