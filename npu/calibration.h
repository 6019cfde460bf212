// Published speeds of language models on phones, and the cost model's rates fitted to them.
//
// npu/calibration.json holds the figures with their sources; npu/cost.json the rates, written by
// bench/npu_calibration from it. How far the model is off is said by leaving out one group of
// figures after another (a language model, or a workload), fitting the others, and estimating those
// left out.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "npu/cost.h"

namespace qnpu {

// How long something took on a phone: calls of graphs, one kind after the other.
struct PublishedTime {
  std::string source, model, recipe;
  std::string kind;   // "prefill", "decode", "run", or "own kernels"
  std::string group;  // what is held back together
  Target target;
  double seconds = 0;
  struct Calls {
    int count;
    std::vector<NodeWork> work;
  };
  std::vector<Calls> calls;

  // The model is of compiled graphs; kernels written by hand are compared with it, not fitted.
  bool fitted() const { return kind != "own kernels"; }
};

struct PublishedEnergy {
  std::string model;
  double seconds = 0, joules = 0;
};

struct Calibration {
  std::vector<PublishedTime> times;
  std::vector<PublishedEnergy> energies;
};

// `root` has npu/calibration.json, recipes/ and targets/.
Calibration load_calibration(const std::filesystem::path& root);

// Least squares of log(estimated / published) over all groups but one (none: ""); energy is the
// median of published joules per published second.
CostParameters fit(const Calibration& calibration, const std::string& left_out);

double ratio(const PublishedTime& time, const CostParameters& parameters);  // estimated / published

// How far estimates are off, as factors: 1.3 is 30 % more or as much less.
struct HeldBack {
  double typical = 0;  // median
  double worst = 0;
  int figures = 0;
};
std::map<std::string, HeldBack> held_back(const Calibration& calibration);  // by kind, and "energy"

struct CostModel {
  CostParameters parameters;
  std::map<std::string, HeldBack> held_back;
};
CostModel load_cost_model(const std::filesystem::path& path);  // npu/cost.json
nlohmann::json to_json(const CostModel& model);

}  // namespace qnpu
