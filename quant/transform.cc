#include "quant/transform.h"

#include "quant/balance_heads.h"
#include "quant/channel_maxima.h"
#include "quant/flatten.h"
#include "quant/memory.h"
#include "quant/online.h"
#include "quant/smooth.h"
#include "quant/split.h"

namespace qnpu {
namespace {

void find_prefix_of(Run& run, FloatModel& model, const Graph& graph, const Tokenizer& tokenizer) {
  const Stopwatch watch(run.result.seconds["prefix"]);
  run.report("prefix", 0, 1);
  run.findings.prefix =
      find_prefix(model, graph, few(run.texts.calibration, 8, 128), sink_tokens(tokenizer),
                  *run.recipe.prefix, run.progress_of("prefix"));
  model.prefix = run.findings.prefix.prefix;
}

// The largest magnitudes of the channels of `sites`; `step` is what it is reported as.
std::map<int, torch::Tensor> maxima_of(Run& run, const FloatModel& model, const Graph& graph,
                                       const std::vector<int>& sites, const char* step) {
  return channel_maxima(model, graph, few(run.texts.calibration, 8, 1024), sites,
                        run.progress_of(step));
}

void smooth_channels(Run& run, FloatModel& model, const Graph& graph) {
  const Stopwatch watch(run.result.seconds["smooth"]);
  const auto maxima = maxima_of(run, model, graph, smooth_sites(graph), "smooth");
  smooth(model, graph, maxima, *run.recipe.smooth);
  return_free_memory();
}

void balance(Run& run, FloatModel& model, const Graph& graph) {
  const Stopwatch watch(run.result.seconds["balance"]);
  const BalanceHeadsSpec& spec = *run.recipe.balance_heads;
  const auto maxima = maxima_of(run, model, graph, balance_sites(graph, spec), "balance");
  balance_heads(model, graph, maxima, spec);
  return_free_memory();
}

// Outlier channels of down_proj's inputs. The graph is that of the wider model.
void split(Run& run, FloatModel& model, Graph& graph) {
  const Stopwatch watch(run.result.seconds["split"]);
  const auto maxima = channel_maxima(model, graph, run.split_windows(), split_sites(graph),
                                     run.progress_of("split"));
  split_channels(model, graph, maxima, *run.recipe.split);
  graph = build_graph(model.config, run.recipe);
  return_free_memory();
}

// Turns the model on, to where its weights round best.
void flatten_weights(Run& run, FloatModel& model, const Graph& graph) {
  const Stopwatch watch(run.result.seconds["flatten"]);
  run.report("flatten", 0, 1);
  const Flattening found =
      flatten(model, graph, run.recipe, run.progress_of("flatten"), run.o.workers);
  rotate(model, found.rotations);
  Rotations& all = run.rotations;
  if (all.r1.defined()) all.r1 = torch::matmul(all.r1, found.rotations.r1.cpu());
  for (size_t layer = 0; layer < all.r2.size(); ++layer) {
    all.r2[layer] = torch::matmul(all.r2[layer], found.rotations.r2[layer].cpu());
  }
  run.findings.fourth_powers = {found.before, found.after};
  return_free_memory();
}

// The most sensitive inputs of down_proj get 16 bits.
void widen(Run& run, const FloatModel& model, Graph& graph) {
  const Stopwatch watch(run.result.seconds["sensitivity"]);
  run.findings.sensitivity =
      measure_sensitivity(model, graph, few(run.texts.calibration, 4, 2048),
                          *run.recipe.sensitivity, run.progress_of("sensitivity"));
  widen_sensitive(run.recipe, run.findings.sensitivity);
  graph = build_graph(model.config, run.recipe);
}

// Widths within the recipe's budget, once the weights are what will be rounded.
void choose(Run& run, const FloatModel& model, Graph& graph) {
  const Stopwatch watch(run.result.seconds["widths"]);
  graph.prefix_tokens = model.prefix.tokens;
  run.findings.widths =
      choose_widths(model, run.recipe, graph, few(run.texts.calibration, 4, 128),
                    run.positions(model.config), run.progress_of("widths"), run.o.workers);
  return_free_memory();
  run.result.widths = width_table(run.findings.widths, run.recipe.budget);
  run.say(run.result.widths);
}

}  // namespace

void take_outliers_away(Run& run, FloatModel& model, Graph& graph, const Tokenizer& tokenizer) {
  if (run.recipe.prefix) find_prefix_of(run, model, graph, tokenizer);
  if (run.recipe.smooth) smooth_channels(run, model, graph);
  if (run.recipe.balance_heads) balance(run, model, graph);
  if (run.recipe.split) split(run, model, graph);
}

void turn(Run& run, FloatModel& model, Graph& graph) {
  {
    run.report("rotate", 0, 1);
    const Stopwatch watch(run.result.seconds["rotate"]);
    run.rotations = make_rotations(model.config, run.recipe.r1, run.recipe.r2, run.o.seed);
    rotate(model, run.rotations);
    return_free_memory();
  }
  if (run.recipe.flatten) flatten_weights(run, model, graph);
  rotate_online(model, graph, run.recipe);
  if (run.recipe.sensitivity) widen(run, model, graph);
  if (!run.recipe.budget.empty()) choose(run, model, graph);
}

}  // namespace qnpu
