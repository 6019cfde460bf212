// Calibration text from the model itself, where the user has none: it is written in the model's own
// words, so the activations that it causes are those of the model's own generations.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "io/tokenizer.h"
#include "model/graph.h"
#include "model/recipe.h"
#include "quant/float_model.h"

namespace qnpu {

struct SampleOptions {
  int sequences = 16;  // decoded together
  int tokens = 512;    // of each
  int top_k = 100;
  double top_p = 0.95;
  uint64_t seed = 0;
  std::function<void(int done, int total)> progress;  // after each token; may throw to stop
};

// How many tokens of the model's own text a run takes, at least: what the recipe says, else
// `samples` windows of `length`, but no more than 8192 and no less than one window.
int64_t sampled_tokens(const Recipe& recipe, int samples, int length);

// Sequences of 256 tokens, or of the longest that the model takes, for so many tokens in all.
SampleOptions sequences_for(int64_t tokens, const ModelConfig& config);

// The sequences as text, separated by empty lines; special tokens are never sampled. Temperature 1,
// first token: BOS if the tokenizer adds one, else the end-of-text token, else a random one. The
// same seed gives the same text on the same machine with the same number of threads (another number
// may round a matrix product differently, and one bit can change which token is drawn).
std::string sample_text(const FloatModel& model, const Graph& graph, const Tokenizer& tokenizer,
                        const SampleOptions& options);

// Draws an index from softmax(logits) restricted to the top_k largest and, of those, the fewest
// whose probabilities sum up to top_p. `uniform` in [0, 1). Indices that `allowed` forbids are
// never drawn.
int sample_token(const float* logits, const std::vector<bool>& allowed, int top_k, double top_p,
                 double uniform);

}  // namespace qnpu
