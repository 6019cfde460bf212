#include "quant/channel_maxima.h"

#include "base/status.h"

namespace qnpu {

std::map<int, torch::Tensor> channel_maxima(const FloatModel& model, const Graph& graph,
                                            const std::vector<Window>& windows,
                                            const std::vector<int>& sites,
                                            const WindowProgress& progress) {
  std::map<int, torch::Tensor> maxima;
  for (int site : sites) maxima[site] = torch::zeros({graph.site(site).cols});
  const SiteHook hook = [&](int site, const torch::Tensor& value) {
    const auto found = maxima.find(site);
    if (found != maxima.end()) {  // [B, T, cols]; maximum keeps a NaN
      found->second =
          torch::maximum(found->second, without_sinks(value).flatten(0, -2).abs().amax(0).cpu());
    }
    return value;
  };
  Simulator simulator(model, graph);
  simulator.use_fast_products();
  read_windows(simulator, windows, hook, /*with_logits=*/false, progress);
  for (const auto& [site, largest] : maxima) {
    if (torch::isfinite(largest).all().item<bool>()) continue;
    fail("site '{}' holds NaN or infinity during calibration: check the checkpoint's weights",
         graph.site(site).name);
  }
  return maxima;
}

}  // namespace qnpu
