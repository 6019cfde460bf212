#include "apps/qnpu/learning.h"

#include <omp.h>

#include <algorithm>
#include <set>
#include <vector>

#include "apps/qnpu/interrupt.h"
#include "apps/qnpu/processes.h"
#include "apps/qnpu/program.h"
#include "base/status.h"
#include "quant/device.h"
#include "quant/fake_quant.h"
#include "quant/online.h"
#include "quant/quantize.h"
#include "quant/simulator.h"

namespace qnpu {
namespace {

// Asked before libtorch first counts threads by itself: on virtual machines it may find one core.
void use_threads(int threads, int processes = 1) {
  const int all = threads > 0 ? threads : omp_get_max_threads();
  torch::set_num_threads(std::max(1, all / processes));
}

// A simulator with everything that it refers to.
struct Runner {
  Runner(FloatModel from, Graph of, torch::ScalarType dtype)
      : model(std::move(from)), graph(std::move(of)), simulator(model, graph, dtype) {}

  // The whole window goes through the layers at once, and through the head by rows.
  std::span<const float> rows(std::span<const int32_t> window, int begin, int count) {
    const torch::InferenceMode guard;
    if (begin == 0) {
      simulator.reset();
      hidden = forward(window);
    }
    return head(hidden.slice(0, begin, begin + count));
  }

  std::span<const float> resume(std::span<const int32_t> tokens, int keep, bool all_rows) {
    const torch::InferenceMode guard;
    simulator.truncate(graph.prefix_length() + keep);
    hidden = forward(tokens.subspan(keep));
    return head(all_rows ? hidden : hidden.slice(0, -1));
  }

  torch::Tensor forward(std::span<const int32_t> tokens) {
    const std::vector<int64_t> wide(tokens.begin(), tokens.end());
    return simulator.forward(torch::tensor(wide).unsqueeze(0), hook).squeeze(0);
  }

  std::span<const float> head(const torch::Tensor& rows) {
    logits = simulator.logits(rows, hook).contiguous();
    return {logits.data_ptr<float>(), static_cast<size_t>(logits.numel())};
  }

  FloatModel model;
  Graph graph;
  Simulator simulator;
  SiteHook hook;
  torch::Tensor hidden;  // [T, D] of the current window, or of the tokens added last
  torch::Tensor logits;  // [count, V]
};

LogitsSource source_of(std::shared_ptr<Runner> runner, const std::string& name) {
  LogitsSource source;
  source.name = name;
  source.vocab = runner->graph.config.vocab_size;
  source.context = runner->graph.config.max_positions - runner->graph.prefix_length();
  source.resume = [runner](std::span<const int32_t> tokens, int keep, bool all_rows) {
    return runner->resume(tokens, keep, all_rows);
  };
  source.rows = [runner](int, std::span<const int32_t> window, int begin, int count) {
    return runner->rows(window, begin, count);
  };
  return source;
}

// Of several processes, the first shows progress and writes.
QuantizeSummary quantize_with(Processes& others, const QuantizeArguments& arguments,
                              Progress& progress) {
  QuantizeOptions options;
  options.model = arguments.model;
  options.recipe = load_recipe(arguments.recipe);
  if (!arguments.budget.empty()) options.recipe.budget = arguments.budget;
  options.calibration = arguments.calibration;
  const CalibrationSpec calibration = options.recipe.calibration.value_or(CalibrationSpec{});
  options.samples = arguments.samples > 0 ? arguments.samples : calibration.samples;
  options.length = arguments.length > 0 ? arguments.length : calibration.length;
  options.seed = arguments.seed;
  options.out = arguments.out;
  options.work = arguments.work;
  options.device = device_named(arguments.device);
  options.workers = Workers::from_environment(options.device);
  const auto show = [&](const std::string& step, int done, int total, const Figures& figures) {
    others.check();
    if (options.workers.first()) {
      progress.update(step, done, total, figures);
    } else {
      check_interrupted();
    }
  };
  options.progress = [show](const std::string& step, int done, int total) {
    show(step, done, total, {});
  };
  options.learned = show;
  options.say = [&](const std::string& text) { progress.say(text); };
  const QuantizeResult result = quantize(options);
  QuantizeSummary summary;
  summary.seconds = result.seconds;
  summary.learn_seconds = result.learn_seconds;
  summary.peak_bytes = result.peak_bytes;
  summary.size_bytes = result.size_bytes;
  summary.calibration_tokens = result.calibration_tokens;
  summary.expected_seconds = result.expected_seconds;
  summary.expected_peak_bytes = result.expected_peak_bytes;
  summary.widths = result.widths;
  summary.first = options.workers.first();
  return summary;
}

// Of those that a node writes; a cache stands for what is appended to it.
std::set<int> matching_sites(const Graph& graph, const std::vector<std::string>& globs) {
  std::set<int> sites;
  for (const std::string& glob : globs) {
    bool matches = false;
    for (const Node& node : graph.nodes) {
      if (!glob_match(glob, graph.site(node.out).name)) continue;
      sites.insert(node.out);
      matches = true;
    }
    if (!matches) fail("'{}' matches no activation; `qnpu inspect` lists all sites", glob);
  }
  return sites;
}

}  // namespace

void need_learning_program() {}

QuantizeSummary quantize_checkpoint(const QuantizeArguments& arguments, Progress& progress) {
  use_threads(arguments.threads, arguments.processes);
  device_named(arguments.device);  // if it is not there, no process need be started
  Processes others(arguments.processes);
  try {
    return quantize_with(others, arguments, progress);
  } catch (const std::exception&) {
    others.check(/*about_to_end=*/true);  // if one of them is the reason, it knows better
    throw;
  }
}

LogitsSource float_source(const std::filesystem::path& folder, const std::string& dtype,
                          int threads) {
  use_threads(threads);
  FloatModel model = load_float_model(folder);
  Graph graph = build_graph(model.config, Recipe{});
  const auto type = dtype == "bf16" ? torch::kBFloat16 : torch::kFloat32;
  return source_of(std::make_shared<Runner>(std::move(model), std::move(graph), type), folder);
}

LogitsSource simulated_source(std::shared_ptr<const Artifact> artifact,
                              const std::vector<std::string>& exact, int threads) {
  use_threads(threads);
  const auto runner =
      std::make_shared<Runner>(simulated_model(*artifact), artifact->graph, torch::kFloat32);
  set_artifact_weights(runner->simulator, *artifact);
  runner->hook = [artifact, hook = simulation_hook(*artifact),
                  unrounded = matching_sites(artifact->graph, exact)](int site,
                                                                      const torch::Tensor& value) {
    return unrounded.contains(site) ? value : hook(site, value);  // and `artifact` stays alive
  };
  LogitsSource source = source_of(runner, artifact->folder);
  source.simulated = true;
  source.context = artifact->positions - artifact->graph.prefix_length();
  return source;
}

}  // namespace qnpu
