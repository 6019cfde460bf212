#include "quant/sample_text.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/status.h"
#include "io/unicode.h"
#include "quant/random.h"
#include "quant/simulator.h"

namespace qnpu {
namespace {

// Where neither a text nor the recipe says more; and of one sequence: all are written together.
constexpr int kMostTokens = 8192;
constexpr int kSequenceTokens = 256;

std::vector<bool> ordinary_tokens(const Tokenizer& tokenizer, int vocab_size) {
  std::vector<bool> ordinary(static_cast<size_t>(vocab_size), false);
  bool any = false;
  for (int id = 0; id < std::min(vocab_size, tokenizer.vocab_size()); ++id) {
    ordinary[static_cast<size_t>(id)] = !tokenizer.is_special(id);
    any = any || ordinary[static_cast<size_t>(id)];
  }
  if (!any) fail("the tokenizer has no ordinary tokens to sample calibration text from");
  return ordinary;
}

int first_token(const Tokenizer& tokenizer, const std::vector<bool>& ordinary, SplitMix64& random) {
  const std::vector<int> added = tokenizer.encode("", /*add_special_tokens=*/true);
  if (!added.empty()) return added.front();
  const int end_of_text = tokenizer.token_to_id("<|endoftext|>");
  if (end_of_text >= 0 && end_of_text < static_cast<int>(ordinary.size())) return end_of_text;
  while (true) {
    const auto id = random.below(ordinary.size());
    if (ordinary[id]) return static_cast<int>(id);
  }
}

std::string join(const Tokenizer& tokenizer, const std::vector<std::vector<int>>& sequences) {
  std::string text;
  for (const std::vector<int>& ids : sequences) {
    text += tokenizer.decode(ids, /*skip_special_tokens=*/true) + "\n\n";
  }
  text.erase(std::remove(text.begin(), text.end(), '\0'), text.end());
  return replace_invalid_utf8(text);
}

}  // namespace

int sample_token(const float* logits, const std::vector<bool>& allowed, int top_k, double top_p,
                 double uniform) {
  std::vector<int> ids;
  for (size_t id = 0; id < allowed.size(); ++id) {
    if (allowed[id]) ids.push_back(static_cast<int>(id));
  }
  const auto more_likely = [&](int a, int b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  };
  const size_t kept = std::min<size_t>(ids.size(), static_cast<size_t>(std::max(1, top_k)));
  std::partial_sort(ids.begin(), ids.begin() + static_cast<int64_t>(kept), ids.end(), more_likely);
  ids.resize(kept);
  std::vector<double> weights(kept);
  double total = 0.0;
  for (size_t i = 0; i < kept; ++i) {
    total += weights[i] = std::exp(static_cast<double>(logits[ids[i]]) - logits[ids[0]]);
  }
  double nucleus = 0.0;
  size_t count = 0;
  while (count < kept && nucleus < top_p * total) nucleus += weights[count++];
  double rest = uniform * nucleus;
  for (size_t i = 0; i < count; ++i) {
    rest -= weights[i];
    if (rest < 0.0) return ids[i];
  }
  return ids[count == 0 ? 0 : count - 1];
}

int64_t sampled_tokens(const Recipe& recipe, int samples, int length) {
  const int64_t wanted = recipe.sample ? recipe.sample->tokens
                                       : std::min<int64_t>(int64_t{samples} * length, kMostTokens);
  return std::max<int64_t>(length, wanted);
}

SampleOptions sequences_for(int64_t tokens, const ModelConfig& config) {
  // Encoding the text again may take a few tokens less than were sampled: 1/16 more.
  const int64_t wanted = tokens + tokens / 16 + 1;
  SampleOptions sample;
  sample.tokens = std::min(kSequenceTokens, config.max_positions - 1);
  sample.sequences = static_cast<int>((wanted + sample.tokens - 1) / sample.tokens);
  return sample;
}

std::string sample_text(const FloatModel& model, const Graph& graph, const Tokenizer& tokenizer,
                        const SampleOptions& options) {
  const torch::NoGradGuard no_grad;
  const std::vector<bool> ordinary = ordinary_tokens(tokenizer, model.config.vocab_size);
  const auto batch = static_cast<size_t>(options.sequences);
  SplitMix64 random(options.seed);
  std::vector<int64_t> last(batch);
  for (int64_t& id : last) id = first_token(tokenizer, ordinary, random);
  std::vector<std::vector<int>> sequences(batch);
  std::vector<double> uniform(batch);
  Simulator simulator(model, graph);
  for (int step = 0; step < options.tokens; ++step) {
    const torch::Tensor hidden =
        simulator.forward(torch::tensor(last, torch::kInt64).unsqueeze(1));  // [B, 1, D]
    const torch::Tensor logits = simulator.logits(hidden.squeeze(1)).cpu().contiguous();  // [B, V]
    for (double& u : uniform) u = random.uniform();
#pragma omp parallel for
    for (size_t b = 0; b < batch; ++b) {
      const float* row = logits.data_ptr<float>() + static_cast<int64_t>(b) * logits.size(1);
      last[b] = sample_token(row, ordinary, options.top_k, options.top_p, uniform[b]);
      sequences[b].push_back(static_cast<int>(last[b]));
    }
    if (options.progress) options.progress(step + 1, options.tokens);
  }
  return join(tokenizer, sequences);
}

}  // namespace qnpu
