#include "quant/prefix.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "quant/simulator.h"

namespace qnpu {
namespace {

constexpr size_t kMostTried = 8;     // tokens
constexpr size_t kStarts = 24;       // frequent tokens that a text may begin with ...
constexpr size_t kStartLength = 16;  // ... each followed by some text, up to this length
constexpr double kWorthIt = 0.95;    // of the bits before

// Per layer, the largest magnitude of down_proj's input of each token of all windows: [tokens].
std::vector<torch::Tensor> token_maxima(const FloatModel& model, const Graph& graph,
                                        const std::vector<Window>& windows) {
  std::map<int, std::vector<torch::Tensor>> seen;
  for (const Node& node : graph.nodes) {
    if (node.name.ends_with("mlp.down_proj")) seen[node.in[0]];
  }
  const SiteHook hook = [&](int site, const torch::Tensor& value) {
    const auto found = seen.find(site);
    if (found != seen.end()) found->second.push_back(value.squeeze(0).abs().amax(-1));
    return value;
  };
  Simulator simulator(model, graph);
  simulator.use_fast_products();
  read_windows(simulator, windows, hook, /*with_logits=*/false, {});
  std::vector<torch::Tensor> maxima;
  for (const auto& [site, parts] : seen) maxima.push_back(torch::cat(parts));
  return maxima;
}

// Each window by itself: a sink in the middle of one must not hide what a prefix does for the
// others.
double bits_of(const std::vector<torch::Tensor>& maxima, const std::vector<Window>& windows) {
  double sum = 0.0;
  for (const torch::Tensor& layer : maxima) {
    const double median = layer.median().item<double>();
    int64_t begin = 0;
    for (const Window& window : windows) {
      const auto length = static_cast<int64_t>(window.size());
      const double largest = layer.narrow(0, begin, length).max().item<double>();
      if (median > 0.0 && largest > 0.0) sum += std::log2(largest / median);
      begin += length;
    }
  }
  return sum / static_cast<double>(maxima.size() * windows.size());
}

// Tokens at the places that stand out most in some layer, without repetition.
std::vector<int> outlier_tokens(const std::vector<torch::Tensor>& maxima,
                                const std::vector<Window>& windows) {
  std::vector<int> all;
  for (const Window& window : windows) all.insert(all.end(), window.begin(), window.end());
  std::vector<std::pair<double, int>> places;
  for (const torch::Tensor& layer : maxima) {
    const double median = std::max(1e-12, layer.median().item<double>());
    const auto [values, indices] = layer.topk(std::min<int64_t>(8, layer.numel()));
    for (int64_t i = 0; i < values.numel(); ++i) {
      places.emplace_back(values[i].item<double>() / median, all[indices[i].item<int64_t>()]);
    }
  }
  std::sort(places.begin(), places.end(), std::greater<>());
  std::vector<int> tokens;
  for (const auto& [ratio, token] : places) {
    if (std::find(tokens.begin(), tokens.end(), token) == tokens.end()) tokens.push_back(token);
  }
  return tokens;
}

// A first token can be a sink behind one prefix and not behind another (in SmolLM2 a full stop is,
// behind <|endoftext|>), and few windows begin with one: adds short ones that begin with the
// windows' most frequent tokens.
std::vector<Window> with_starts(std::vector<Window> windows) {
  std::map<int, int> counts;
  for (const Window& window : windows) {
    for (const int token : window) ++counts[token];
  }
  std::vector<std::pair<int, int>> frequent;  // count, token
  for (const auto& [token, count] : counts) frequent.emplace_back(count, token);
  std::sort(frequent.begin(), frequent.end(), std::greater<>());
  frequent.resize(std::min(frequent.size(), kStarts));
  const size_t texts = windows.size();
  for (size_t i = 0; i < frequent.size(); ++i) {
    Window start{frequent[i].second};
    const Window& text = windows[i % texts];
    const size_t rest = std::min(kStartLength - 1, text.size());
    start.insert(start.end(), text.end() - static_cast<int64_t>(rest), text.end());
    windows.push_back(std::move(start));
  }
  return windows;
}

}  // namespace

double outlier_bits(const FloatModel& model, const Graph& graph,
                    const std::vector<Window>& windows) {
  return bits_of(token_maxima(model, graph, windows), windows);
}

PrefixSearch find_prefix(const FloatModel& model, const Graph& graph,
                         const std::vector<Window>& texts, const std::vector<int>& first,
                         const PrefixSpec& spec, const WindowProgress& progress) {
  const std::vector<Window> windows = with_starts(texts);
  FloatModel tried = model;
  tried.prefix = {};
  std::vector<torch::Tensor> maxima = token_maxima(tried, graph, windows);
  PrefixSearch search{{}, {bits_of(maxima, windows)}};
  const int total = spec.max_tokens * static_cast<int>(kMostTried);
  for (int length = 1; length <= spec.max_tokens; ++length) {
    std::vector<int> candidates = first;
    for (int token : outlier_tokens(maxima, windows)) candidates.push_back(token);
    candidates.resize(std::min(candidates.size(), kMostTried));
    Prefix best;
    double least = search.bits.back() * kWorthIt;
    for (size_t i = 0; i < candidates.size(); ++i) {
      std::vector<int> tokens = search.prefix.tokens;
      tokens.push_back(candidates[i]);
      tried.prefix = compute_prefix(model, graph, tokens);
      const double bits = outlier_bits(tried, graph, windows);
      if (bits < least) {
        least = bits;
        best = tried.prefix;
      }
      if (progress) progress((length - 1) * static_cast<int>(kMostTried) + i + 1, total);
    }
    if (best.tokens.empty()) break;
    search.prefix = best;
    search.bits.push_back(least);
    tried.prefix = best;
    if (length < spec.max_tokens) maxima = token_maxima(tried, graph, windows);
  }
  return search;
}

Prefix compute_prefix(const FloatModel& model, const Graph& graph, std::vector<int> tokens) {
  Prefix prefix;
  if (tokens.empty()) return prefix;
  const SiteHook record = [&](int site, const torch::Tensor& value) {
    const Site& s = graph.site(site);
    if (s.role == Role::kKCache || s.role == Role::kVCache) {
      prefix.rows[s.name] = value.squeeze(0).contiguous();  // [P, cols]
    }
    return value;
  };
  Simulator simulator(model, graph);
  simulator.set_prefix({});
  const std::vector<int64_t> ids(tokens.begin(), tokens.end());
  simulator.forward(torch::tensor(ids, torch::kInt64).unsqueeze(0), record);
  prefix.tokens = std::move(tokens);
  return prefix;
}

}  // namespace qnpu
