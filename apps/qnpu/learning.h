// What needs libtorch. qnpu-learn does it (learning.cc); qnpu hands the whole command over to
// qnpu-learn instead (learning_absent.cc), and so needs no libtorch itself.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "apps/qnpu/logits_source.h"
#include "apps/qnpu/progress.h"

namespace qnpu {

// To be called before work that would be done again after the hand-over, such as reading texts.
void need_learning_program();

struct QuantizeArguments {
  std::filesystem::path model;
  std::filesystem::path recipe;
  std::string budget;                              // instead of the recipe's; empty: the recipe's
  std::vector<std::filesystem::path> calibration;  // none: sampled from the model
  std::filesystem::path out;
  std::filesystem::path work;  // state of a run that learns
  int samples = 0;             // 0: the recipe's
  int length = 0;              // tokens; 0: the recipe's
  uint64_t seed = 0;
  int threads = 0;
  int processes = 1;           // that share the threads
  std::string device = "cpu";  // or "cuda"
};

struct QuantizeSummary {
  std::map<std::string, double> seconds;                     // by step, and "total"
  std::map<std::string, std::vector<double>> learn_seconds;  // by section, of each step
  int64_t peak_bytes = 0;  // largest resident memory of the process
  int64_t size_bytes = 0;  // of the artifact's files
  int64_t calibration_tokens = 0;
  double expected_seconds = 0.0;  // what the run said before it began
  int64_t expected_peak_bytes = 0;
  std::string widths;  // table of those chosen within a budget
  bool first = true;   // of several processes: the others wrote nothing and say nothing
};

QuantizeSummary quantize_checkpoint(const QuantizeArguments& arguments, Progress& progress);

// A float checkpoint; `dtype` of its weights and products is "fp32" or "bf16".
LogitsSource float_source(const std::filesystem::path& folder, const std::string& dtype,
                          int threads);

// An artifact in the float simulator: every site rounded to its grid, whatever its recipe does at
// run time done. Activations and caches that one of the globs `exact` matches are not rounded.
// Error: a glob matches none.
LogitsSource simulated_source(std::shared_ptr<const Artifact> artifact,
                              const std::vector<std::string>& exact, int threads);

}  // namespace qnpu
