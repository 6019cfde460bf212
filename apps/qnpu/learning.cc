#include "apps/qnpu/learning.h"

#include <omp.h>

#include <vector>

#include "apps/qnpu/program.h"
#include "base/status.h"
#include "quant/quantize.h"
#include "quant/simulator.h"

namespace qnpu {
namespace {

// Asked before libtorch first counts threads by itself: on virtual machines it may find one core.
void use_threads(int threads) {
  torch::set_num_threads(threads > 0 ? threads : omp_get_max_threads());
}

// A float model with everything that its simulator refers to.
struct FloatRunner {
  FloatRunner(const std::filesystem::path& folder, torch::ScalarType dtype)
      : model(load_float_model(folder)),
        graph(build_graph(model.config, Recipe{})),
        simulator(model, graph, dtype) {}

  // The whole window goes through the layers at once, and through the head by rows.
  std::span<const float> rows(std::span<const int32_t> window, int begin, int count) {
    const torch::InferenceMode guard;
    if (begin == 0) {
      simulator.reset();
      const std::vector<int64_t> tokens(window.begin(), window.end());
      hidden = simulator.forward(torch::tensor(tokens).unsqueeze(0)).squeeze(0);
    }
    logits = simulator.logits(hidden.slice(0, begin, begin + count)).contiguous();
    return {logits.data_ptr<float>(), static_cast<size_t>(logits.numel())};
  }

  FloatModel model;
  Graph graph;
  Simulator simulator;
  torch::Tensor hidden;  // [T, D] of the current window
  torch::Tensor logits;  // [count, V]
};

}  // namespace

QuantizeSummary quantize_checkpoint(const QuantizeArguments& arguments, Progress& progress) {
  use_threads(arguments.threads);
  QuantizeOptions options;
  options.model = arguments.model;
  options.recipe = load_recipe(arguments.recipe);
  options.calibration = arguments.calibration;
  options.samples = arguments.samples;
  options.length = arguments.length;
  options.seed = arguments.seed;
  options.out = arguments.out;
  options.progress = [&](const std::string& step, int done, int total) {
    progress.update(step, done, total);
  };
  const QuantizeResult result = quantize(options);
  return {result.seconds, result.peak_bytes, result.size_bytes, result.calibration_tokens};
}

LogitsSource float_source(const std::filesystem::path& folder, const std::string& dtype,
                          int threads) {
  use_threads(threads);
  const auto runner =
      std::make_shared<FloatRunner>(folder, dtype == "bf16" ? torch::kBFloat16 : torch::kFloat32);
  LogitsSource source;
  source.name = folder.string();
  source.vocab = runner->model.config.vocab_size;
  source.rows = [runner](int, std::span<const int32_t> window, int begin, int count) {
    return runner->rows(window, begin, count);
  };
  return source;
}

}  // namespace qnpu
