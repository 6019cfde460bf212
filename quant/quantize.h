// The whole way from a checkpoint to an artifact: load, fold, rotate, observe, choose ranges,
// freeze.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "model/recipe.h"
#include "quant/learn/workers.h"

namespace qnpu {

struct QuantizeOptions {
  std::filesystem::path model;  // checkpoint folder
  Recipe recipe;
  std::vector<std::filesystem::path> calibration;  // texts; none: sampled from the model
  int samples = 16;   // windows of calibration text, at most; shared evenly by several texts
  int length = 2048;  // tokens of each
  uint64_t seed = 0;
  std::filesystem::path out;   // the artifact; replaced, if there is one, when all is done
  std::filesystem::path work;  // folder of the state of a run that learns; empty: `out`.work
  int max_positions = 8192;    // longest context of the artifact, at most the model's own
  torch::Device device = torch::kCPU;  // where the model's tensors and what it computes are
  Workers workers;  // the first of them writes the artifact, the others only help
  // Called often, from one thread. `step` is "load", "sample", "prefix", "smooth", "balance",
  // "split", "rotate", "flatten", "sensitivity", "widths", "calibrate", "learn", "round", "tune",
  // "freeze" or "compare", in this order, those that the recipe has. May throw, to stop: what was
  // begun is then removed, but for the state of a run that learns, which goes on there when it is
  // started again.
  std::function<void(const std::string& step, int done, int total)> progress;
  // The same for each step of "learn" and "tune", with its loss and learning rates; without it,
  // `progress` is called.
  std::function<void(const std::string& step, int done, int total,
                     const std::map<std::string, double>& figures)>
      learned;
  // Whole lines for the user, by the first worker: what the run will take, before the long work,
  // and the widths that were chosen within a budget.
  std::function<void(const std::string& text)> say;
};

struct QuantizeResult {
  std::map<std::string, double> seconds;                     // by step, and "total"
  std::map<std::string, std::vector<double>> learn_seconds;  // by section, of each step taken now
  int64_t peak_bytes = 0;  // largest resident memory of this process so far
  int64_t size_bytes = 0;  // of the artifact's files
  int calibration_windows = 0;
  int calibration_tokens = 0;
  double expected_seconds = 0.0;  // as said before the long work (estimate.h)
  int64_t expected_peak_bytes = 0;
  std::string widths;  // table of the widths chosen within the recipe's budget, if it has one
};

// The same inputs and seed give the same bytes in every file of the artifact (with the same number
// of threads, which may change the last bit of a float matrix product). On an Error, nothing is
// left behind and an artifact that was at `out` stays as it was.
QuantizeResult quantize(const QuantizeOptions& options);

}  // namespace qnpu
