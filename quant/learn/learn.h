// Gradient descent through the quantized model (recipe sections "learn" and "tune"): scales,
// rotations, and weights before rounding, such that what is frozen by rounding to nearest comes
// near the float model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "model/graph.h"
#include "quant/calibration_text.h"
#include "quant/float_model.h"
#include "quant/learn/workers.h"

namespace qnpu {

struct LearnOptions {
  LearnSpec spec;
  std::string section = "learn";  // of the recipe: for messages, and the state's file name
  const std::vector<Window>* texts = nullptr;  // in turns, cut into sequences of spec.length tokens
  std::vector<HeldOut> held_out;
  Rotations rotations;  // where spec.rotations starts
  uint64_t seed = 0;
  torch::ScalarType type = torch::kBFloat16;  // of matrix products; kFloat32 on CPUs without bf16
  Workers workers;              // that share the sequences of a step; all give the same result
  std::filesystem::path state;  // folder of checkpoints; empty: none
  int checkpoint_every = 16;    // steps
  std::function<void(int step, int total, double loss)> progress;  // may throw to stop
};

// Whether it is to move anything at the rate `lr_scales`.
bool learns_scales(const LearnSpec& spec);

// Error: what cannot be learned together, or not at all, or not by so many workers.
void check_learning(const LearnSpec& spec, const std::string& section, const Workers& workers = {});

// Of a step (from 0): "lr_rotations", "lr_scales", "lr_weights", those of what is learned.
std::map<std::string, double> learning_rates(const LearnSpec& spec, int step);

struct HeldOutLoss {
  std::string name;
  double before = 0.0;   // the loss that is learned, per token
  double after = 0.0;    // of what was learned, accepted or not
  double teacher = 0.0;  // cross entropy of the float model on the same tokens
};

struct LearnReport {
  std::vector<double> losses;  // per token, by step
  std::vector<double> rates;   // factors of the recipe's learning rates, by step
  std::map<std::string, std::vector<double>> movement;  // by kind and step (Parameters::movement)
  std::vector<double> seconds;                          // by step, of those taken in this process
  std::vector<HeldOutLoss> held_out;
  bool accepted = true;  // false: worse than the start on a held-out text, so the start was kept
  double largest_drift = 0.0;  // max |R'R - I| that was repaired
};
nlohmann::json to_json(const LearnReport& report);

// `student`: norms folded; its weight sites in `graph` hold the scales to begin with, or none
// (weight_scales chooses, by rotated weights), its activation sites hold QParams. With
// spec.rotations it is not rotated yet, while the QParams are those of a model rotated by
// options.rotations; otherwise it is in its final basis. `teacher` is the float model in any basis.
//
// Afterwards student.weights are the learned weights before rounding, rotated, and the sites'
// scales the learned ones: freeze() rounds by them.
//
// Error, with the last checkpoint left in options.state: the loss is not finite, or stays above
// three times its start; says which rates to lower. Error: a state of another run.
LearnReport learn(FloatModel& student, const FloatModel& teacher, Graph& graph,
                  const LearnOptions& options);

}  // namespace qnpu
