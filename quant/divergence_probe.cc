#include "quant/divergence_probe.h"

#include <algorithm>
#include <numeric>

#include "base/status.h"
#include "eval/metrics.h"

namespace qnpu {
namespace {

constexpr int64_t kLogitRows = 256;

torch::Tensor batch_of(const std::vector<Window>& windows) {
  std::vector<torch::Tensor> rows;
  for (const Window& window : windows) {
    const std::vector<int64_t> ids(window.begin(), window.end());
    rows.push_back(torch::tensor(ids, torch::kInt64));
  }
  return torch::stack(rows);
}

// Node 0 is the embedding; layers are runs of nodes, and behind the last one come norm and head.
std::vector<int> first_nodes(const Graph& graph) {
  std::vector<int> first;
  for (int i = 1; i < graph.nodes.size(); ++i) {
    if (i == 1 || graph.nodes[i].layer != graph.nodes[i - 1].layer) first.push_back(i);
  }
  return first;
}

// Calls use(logits [count, V], first row) for chunks of the hidden rows.
template <typename Use>
void each_chunk(Simulator& simulator, const torch::Tensor& hidden, Use use) {
  for (int64_t row = 0; row < hidden.size(0); row += kLogitRows) {
    const int64_t count = std::min(kLogitRows, hidden.size(0) - row);
    use(simulator.logits(hidden.narrow(0, row, count)).cpu().contiguous(), row);
  }
}

}  // namespace

DivergenceProbe::DivergenceProbe(const FloatModel& model, const Graph& graph,
                                 const std::vector<Window>& windows)
    : graph_(graph), simulator_(model, graph), begin_(first_nodes(graph)) {
  QNPU_ASSERT(static_cast<int>(begin_.size()) == graph.config.num_layers + 1);
  Simulator::Values values = simulator_.embed(batch_of(windows));
  for (size_t layer = 0; layer < begin_.size(); ++layer) {
    if (layer > 0) simulator_.advance(begin_[layer - 1], begin_[layer], values);
    values_.push_back(values);
  }
  const torch::Tensor hidden = hidden_from(begin_.size() - 1, {});
  logits_ = torch::empty({hidden.size(0), graph.config.vocab_size});
  each_chunk(simulator_, hidden, [&](const torch::Tensor& logits, int64_t row) {
    logits_.narrow(0, row, logits.size(0)).copy_(logits);
  });
}

size_t DivergenceProbe::place(int layer) const {
  return layer < 0 ? begin_.size() - 1 : static_cast<size_t>(layer);
}

// Input of the head [tokens, D].
torch::Tensor DivergenceProbe::hidden_from(size_t place, const SiteHook& hook) {
  const int head = static_cast<int>(graph_.nodes.size()) - 1;
  Simulator::Values values = values_[place];
  simulator_.reset();
  simulator_.advance(begin_[place], head, values, hook);
  return values[graph_.nodes[head].in[0]].flatten(0, 1);
}

double DivergenceProbe::divergence(int layer, const SiteHook& hook) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor hidden = hidden_from(place(layer), hook);
  const auto vocab = static_cast<size_t>(logits_.size(1));
  std::vector<double> by_token(static_cast<size_t>(hidden.size(0)));
  each_chunk(simulator_, hidden, [&](const torch::Tensor& logits, int64_t first) {
    const float* tested = logits.data_ptr<float>();
    const float* reference = logits_.data_ptr<float>() + first * logits_.size(1);
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < logits.size(0); ++row) {
      const size_t at = static_cast<size_t>(row) * vocab;
      by_token[static_cast<size_t>(first + row)] =
          kl_divergence({reference + at, vocab}, {tested + at, vocab});
    }
  });
  return std::accumulate(by_token.begin(), by_token.end(), 0.0) /
         static_cast<double>(by_token.size());
}

}  // namespace qnpu
