#include "quant/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/status.h"
#include "quant/channel_maxima.h"
#include "quant/fake_quant.h"
#include "quant/ranges.h"

namespace qnpu {
namespace {

std::string input_name(int layer) { return fmt::format("layers.{}.mlp.down_proj.in", layer); }

double sum_of_relative_errors(const torch::Tensor& value, const QParams& qparams) {
  const torch::Tensor x = value.contiguous();
  const torch::Tensor y = fake_quantized(x, qparams);
  return ((y - x).abs() / (x.abs() + 1e-8)).sum(torch::kFloat64).item<double>();
}

std::vector<int> largest(const std::vector<double>& ratio, double share) {
  std::vector<int> layers(ratio.size());
  std::iota(layers.begin(), layers.end(), 0);
  std::stable_sort(layers.begin(), layers.end(), [&](int a, int b) { return ratio[a] > ratio[b]; });
  // A share such as 0.1 of 30 is 3, whatever the product's last bit.
  layers.resize(static_cast<size_t>(std::ceil(share * ratio.size() - 1e-9)));
  std::sort(layers.begin(), layers.end());
  return layers;
}

}  // namespace

Sensitivity measure_sensitivity(const FloatModel& model, const Graph& graph,
                                const std::vector<Window>& windows, const SensitivitySpec& spec,
                                const WindowProgress& progress) {
  const int layers = graph.config.num_layers;
  std::vector<int> sites;
  for (int layer = 0; layer < layers; ++layer) sites.push_back(graph.find_site(input_name(layer)));
  const auto half = [&](int before) -> WindowProgress {
    if (!progress) return {};
    return [&progress, before](int done, int total) { progress(before + done, 2 * total); };
  };
  const auto maxima = channel_maxima(model, graph, windows, sites, half(0));
  std::map<int, QParams> qparams;
  for (const auto& [site, largest] : maxima) {
    const double range = largest.max().item<double>();
    qparams[site] = qparams_of({-range, range}, /*symmetric=*/true, DType::kS8);
  }
  std::vector<double> sums(layers);
  int64_t tokens = 0;
  for (const Window& window : windows) tokens += static_cast<int64_t>(window.size());
  const SiteHook hook = [&](int site, const torch::Tensor& value) {
    const auto found = qparams.find(site);
    if (found != qparams.end()) {
      sums[graph.site(site).layer] += sum_of_relative_errors(value, found->second);
    }
    return value;
  };
  Simulator simulator(model, graph);
  read_windows(simulator, windows, hook, /*with_logits=*/false,
               half(static_cast<int>(windows.size())));
  Sensitivity result;
  for (int layer = 0; layer < layers; ++layer) {
    result.ratio.push_back(sums[layer] / (double{1.0} * tokens * graph.site(sites[layer]).cols));
  }
  result.chosen = largest(result.ratio, spec.share);
  return result;
}

void widen_sensitive(Recipe& recipe, const Sensitivity& sensitivity) {
  for (int layer : sensitivity.chosen) {
    recipe.rules.push_back({.match = input_name(layer), .bitwidth = 16});
  }
}

}  // namespace qnpu
