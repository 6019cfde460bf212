// A learning run on disk: one safetensors file, written under a temporary name and renamed. It
// holds every number that the rest of the run depends on, so that a run that was killed and started
// again gives the same result to the byte.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "model/graph.h"
#include "quant/calibrate.h"
#include "quant/float_model.h"
#include "quant/tensor.h"

namespace qnpu {

struct LearnState {
  int step = 0;  // taken so far
  std::vector<double> losses;
  std::map<std::string, std::vector<double>> movement;         // by kind, as of LearnReport
  std::vector<std::pair<std::string, torch::Tensor>> tensors;  // fp32 or fp64, contiguous
};

// `fingerprint` says what the run is: recipe, model, texts, seed.
void save_state(const std::filesystem::path& path, const std::string& fingerprint,
                const LearnState& state);

// Reads the step, the losses and the kinds of movement that are there, and the tensors in place.
// False if there is no such file. Error if it belongs to another run (says what to do), or does not
// fit.
bool load_state(const std::filesystem::path& path, const std::string& fingerprint,
                LearnState& state);

// 16 hexadecimal digits that change with any bit of a tensor.
std::string tensor_hash(const torch::Tensor& tensor);

// The fingerprint of a run on this model, its prefix, these widths and QParams and texts;
// `settings` holds what else the result depends on.
std::string run_fingerprint(nlohmann::json settings, const FloatModel& model, const Graph& graph,
                            const std::vector<Window>& windows);

}  // namespace qnpu
