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
constexpr double kAsGood = 1.05;     // of the fewest bits

// Windows of one length, next to each other, as one batch [B, T] each.
std::vector<torch::Tensor> batches(const std::vector<Window>& windows) {
  std::vector<torch::Tensor> all;
  for (size_t begin = 0, end = 0; begin < windows.size(); begin = end) {
    std::vector<torch::Tensor> rows;
    for (; end < windows.size() && windows[end].size() == windows[begin].size(); ++end) {
      rows.push_back(torch::tensor(windows[end]).to(torch::kInt64));
    }
    all.push_back(torch::stack(rows));
  }
  return all;
}

// Per layer, the largest magnitude of down_proj's input of each token of all windows: [tokens].
std::vector<torch::Tensor> token_maxima(const FloatModel& model, const Graph& graph,
                                        const std::vector<Window>& windows) {
  std::map<int, std::vector<torch::Tensor>> seen;
  for (const Node& node : graph.nodes) {
    if (node.name.ends_with("mlp.down_proj")) seen[node.in[0]];
  }
  const SiteHook hook = [&](int site, const torch::Tensor& value) {
    const auto found = seen.find(site);
    if (found != seen.end()) found->second.push_back(value.abs().amax(-1).flatten());
    return value;
  };
  Simulator simulator(model, graph);
  simulator.use_fast_products();
  for (const torch::Tensor& tokens : batches(windows)) {
    simulator.reset();
    simulator.forward(tokens, hook);
  }
  std::vector<torch::Tensor> maxima;
  for (const auto& [site, parts] : seen) maxima.push_back(torch::cat(parts).cpu());
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

// Of what comes next, behind every token in the second half of each window: [tokens, V].
torch::Tensor log_probabilities(const FloatModel& model, const Graph& graph,
                                const std::vector<Window>& windows) {
  Simulator simulator(model, graph);
  simulator.use_fast_products();
  std::vector<torch::Tensor> all;
  for (const torch::Tensor& tokens : batches(windows)) {
    simulator.reset();
    const torch::Tensor hidden = simulator.forward(tokens);  // [B, T, D]
    const torch::Tensor rows = hidden.slice(1, hidden.size(1) / 2).flatten(0, 1);
    all.push_back(torch::log_softmax(simulator.logits(rows), -1));
  }
  return torch::cat(all);
}

struct Candidate {
  Prefix prefix;
  double bits = 0.0;
};

// Several tokens may take the outliers away equally well: of those as good as the best, the one
// with which the float model still says what it says without.
Candidate most_faithful(const std::vector<Candidate>& candidates, FloatModel model,
                        const Graph& graph, const std::vector<Window>& texts) {
  const auto fewer = [](const Candidate& a, const Candidate& b) { return a.bits < b.bits; };
  const double fewest = std::min_element(candidates.begin(), candidates.end(), fewer)->bits;
  model.prefix = {};
  const torch::Tensor wanted = log_probabilities(model, graph, texts);
  const Candidate* best = nullptr;
  double least = INFINITY;
  for (const Candidate& candidate : candidates) {
    if (candidate.bits > fewest * kAsGood) continue;
    model.prefix = candidate.prefix;
    const torch::Tensor change = wanted - log_probabilities(model, graph, texts);
    const double divergence = (wanted.exp() * change).sum(-1).mean().item<double>();
    if (best != nullptr && divergence >= least) continue;
    best = &candidate;
    least = divergence;
  }
  return *best;
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
    std::vector<Candidate> worth;
    for (size_t i = 0; i < candidates.size(); ++i) {
      std::vector<int> tokens = search.prefix.tokens;
      tokens.push_back(candidates[i]);
      tried.prefix = compute_prefix(model, graph, tokens);
      const double bits = outlier_bits(tried, graph, windows);
      if (bits < search.bits.back() * kWorthIt) worth.push_back({tried.prefix, bits});
      if (progress) progress((length - 1) * static_cast<int>(kMostTried) + i + 1, total);
    }
    if (worth.empty()) break;
    const Candidate best = most_faithful(worth, tried, graph, texts);
    search.prefix = tried.prefix = best.prefix;
    search.bits.push_back(best.bits);
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
