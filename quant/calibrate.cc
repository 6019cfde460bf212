#include "quant/calibrate.h"

#include <algorithm>
#include <array>

#include "base/status.h"
#include "quant/random.h"

namespace qnpu {
namespace {

// A tensor is observed in this many parts, whatever the number of threads: sums are added in one
// order, so the statistics do not depend on it.
constexpr int kParts = 4;
constexpr int64_t kSmallTensor = 1 << 15;

// Scores are by far the most numerous values; every 61st (a prime: no pattern of rows or heads) is
// enough for their histogram. Their extremes are those of all.
constexpr int kScoresStride = 61;

constexpr int64_t kLogitRows = 256;

constexpr double kSinkRatio = 100.0;  // largest magnitude of a token over the median of all tokens
constexpr int64_t kFewTokens = 16;    // of a window: too few to know what is ordinary

void observe(const torch::Tensor& value, int stride, SiteStatistics& stats) {
  const torch::Tensor dense = value.cpu().contiguous();
  const float* data = dense.data_ptr<float>();
  const int64_t count = dense.numel();
  if (count < kSmallTensor) return stats.add(data, count, stride);
  std::array<SiteStatistics, kParts> parts;
#pragma omp parallel for schedule(static)
  for (int part = 0; part < kParts; ++part) {
    const int64_t begin = count * part / kParts;
    const int64_t end = count * (part + 1) / kParts;
    parts[part].add(data + begin, end - begin, stride);
  }
  for (const SiteStatistics& part : parts) stats.merge(part);
}

// Nodes that pass their input's values on (or their negatives, which a symmetric range shares).
bool passes_values_on(Op op) {
  return op == Op::kConvert || op == Op::kAppend || op == Op::kRotateHalf;
}

// No node computes them, so no other site of the tied group has their values.
void observe_prefix(const FloatModel& model, const Graph& graph,
                    std::vector<SiteStatistics>& stats) {
  for (const auto& [name, rows] : model.prefix.rows) {
    const int cache = graph.find_site(name);
    if (cache >= 0) observe(rows, 1, stats[static_cast<size_t>(cache)]);
  }
}

// What all workers saw, merged in the order of their ranks.
void merge_all(std::vector<SiteStatistics>& stats, const Workers& workers) {
  if (workers.size() == 1) return;
  for (SiteStatistics& site : stats) {
    const std::vector<int64_t> words = site.words();
    const torch::Tensor all = workers.gather(torch::tensor(words, torch::kInt64));
    site = SiteStatistics();
    for (int rank = 0; rank < workers.size(); ++rank) {
      site.merge(SiteStatistics::from_words(all[rank].data_ptr<int64_t>()));
    }
  }
}

}  // namespace

std::vector<Window> cut_windows(const std::vector<int>& tokens, int samples, int length,
                                uint64_t seed) {
  if (samples < 1 || length < 1) {
    fail("{} samples of {} tokens: calibration needs at least one of each", samples, length);
  }
  const auto total = static_cast<int64_t>(tokens.size());
  if (total < length) {
    fail(
        "the calibration text has {} tokens, but one window needs {}: give a longer text or a "
        "smaller length",
        total, length);
  }
  const int64_t count = std::min<int64_t>(samples, total / length);
  // The tokens left over become the gaps: `count` sorted random offsets in 0 .. spare.
  const int64_t spare = total - count * length;
  SplitMix64 random(seed);
  std::vector<int64_t> offsets(static_cast<size_t>(count));
  for (int64_t& offset : offsets) offset = static_cast<int64_t>(random.below(spare + 1));
  std::sort(offsets.begin(), offsets.end());
  std::vector<Window> windows;
  for (int64_t i = 0; i < count; ++i) {
    const auto begin = tokens.begin() + offsets[i] + i * length;
    windows.emplace_back(begin, begin + length);
  }
  return windows;
}

torch::Tensor ordinary_tokens(const torch::Tensor& value) {
  const torch::Tensor largest = value.abs().amax(-1);
  if (value.size(1) < kFewTokens) return torch::ones_like(largest, torch::kBool);
  // What is not finite is kept, for whoever looks at the values to name it.
  return (largest <= kSinkRatio * largest.median()).logical_or(largest.isfinite().logical_not());
}

torch::Tensor without_sinks(const torch::Tensor& value) {
  if (value.dim() != 3) return value;
  const torch::Tensor ordinary = ordinary_tokens(value);
  return ordinary.all().item<bool>() ? value : value.index({ordinary});
}

std::vector<bool> observed_sites(const Graph& graph) {
  std::vector<bool> observed(graph.sites.size(), false);
  for (const Node& node : graph.nodes) {
    const Site& out = graph.site(node.out);
    const int root = tie_root(graph, node.out).site;
    const bool wanted = out.source == RangeSource::kObserved || out.source == RangeSource::kTied;
    const bool of_table = graph.site(root).role == Role::kTable;
    const bool seen = passes_values_on(node.op) && tie_root(graph, node.in[0]).site == root;
    observed[static_cast<size_t>(node.out)] = wanted && !of_table && !seen;
  }
  return observed;
}

void read_windows(Simulator& simulator, const std::vector<Window>& windows, const SiteHook& hook,
                  bool with_logits, const WindowProgress& progress) {
  const torch::NoGradGuard no_grad;
  int done = 0;
  for (const Window& window : windows) {
    simulator.reset();
    const std::vector<int64_t> ids(window.begin(), window.end());
    const torch::Tensor tokens = torch::tensor(ids, torch::kInt64).unsqueeze(0);
    const torch::Tensor hidden = simulator.forward(tokens, hook).squeeze(0);  // [T, D]
    for (int64_t row = 0; with_logits && row < hidden.size(0); row += kLogitRows) {
      simulator.logits(hidden.narrow(0, row, std::min(kLogitRows, hidden.size(0) - row)), hook);
    }
    if (progress) progress(++done, static_cast<int>(windows.size()));
  }
}

std::vector<SiteStatistics> calibrate(const FloatModel& model, const Graph& graph,
                                      const std::vector<Window>& windows,
                                      const WindowProgress& progress, const SiteHook& rounding,
                                      const Workers& workers) {
  const std::vector<bool> observed = observed_sites(graph);
  std::vector<SiteStatistics> stats(graph.sites.size());
  const SiteHook hook = [&](int site, const torch::Tensor& value) {
    if (observed[static_cast<size_t>(site)]) {
      const bool scores = graph.site(site).role == Role::kScores;
      observe(scores ? value : without_sinks(value), scores ? kScoresStride : 1,
              stats[static_cast<size_t>(site)]);
    }
    return rounding ? rounding(site, value) : value;
  };
  if (workers.first()) observe_prefix(model, graph, stats);
  Simulator simulator(model, graph);
  simulator.use_fast_products();
  read_windows(simulator, workers.share(windows), hook, /*with_logits=*/true, progress);
  merge_all(stats, workers);
  return stats;
}

}  // namespace qnpu
