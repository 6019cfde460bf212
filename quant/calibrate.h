// Calibration: the float model reads windows of text, and every site that needs a range is
// observed.
#pragma once

#include <functional>
#include <vector>

#include "model/graph.h"
#include "quant/float_model.h"
#include "quant/learn/workers.h"
#include "quant/observer.h"
#include "quant/simulator.h"

namespace qnpu {

using Window = std::vector<int>;  // token ids

// At most `samples` windows of `length` tokens without overlap; if the text is longer than they
// need, they are spread over it with random gaps (same seed, same windows). Error if the text is
// shorter than one window.
std::vector<Window> cut_windows(const std::vector<int>& tokens, int samples, int length,
                                uint64_t seed);

// By site: does calibration have to look at it? Not at sites whose values another observed site of
// the same tied group has too (both sides of a Convert, new rows and cache).
std::vector<bool> observed_sites(const Graph& graph);

using WindowProgress = std::function<void(int done, int total)>;

// The simulator reads each window from an empty cache, and `hook` sees what it sees: every site, or
// without `with_logits` those before the head only. `progress` is called after each window and may
// throw to stop.
void read_windows(Simulator& simulator, const std::vector<Window>& windows, const SiteHook& hook,
                  bool with_logits, const WindowProgress& progress);

// [B, T, cols] -> [B, T], true for all but attention sinks. NaN and infinity are none.
torch::Tensor ordinary_tokens(const torch::Tensor& value);

// [B, T, cols] -> the rows [tokens, cols] of all but attention sinks, tokens whose largest
// magnitude is above 100 times the median of all tokens; `value` itself if there is none, or few
// tokens.
torch::Tensor without_sinks(const torch::Tensor& value);

// Statistics by site index, without attention sinks; those of the caches hold the model's prefix,
// whose rows their ranges must cover. `rounding`, if given, changes each site's values after they
// were observed. Memory beyond the float model: one window's activations, and logits of 256 tokens
// at a time. Workers share the windows; each gets the statistics of all.
std::vector<SiteStatistics> calibrate(const FloatModel& model, const Graph& graph,
                                      const std::vector<Window>& windows,
                                      const WindowProgress& progress, const SiteHook& rounding = {},
                                      const Workers& workers = {});

}  // namespace qnpu
