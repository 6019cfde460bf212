// From a float model and the activations' QParams to the integers of an artifact.
//
// Order: tables (embedding, norm weights) get their scales; attention products are snapped; the
// laws of the nodes follow from the scales; last come the linears, whose weight scales are snapped
// before the weights are rounded with them (freeze_linear.h). The model's prefix becomes the
// graph's, its rows rounded to the caches' scales.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "model/graph.h"
#include "quant/float_model.h"

namespace qnpu {

struct FreezeOptions {
  int max_positions = 8192;  // rows of the cos and sin tables, at most the model's own
  std::function<void(int done, int total)> progress;  // after each linear; may throw to stop
};

// What rounding did to one weight or table.
struct WeightReport {
  int bits = 0;
  int block_size = 0;  // 0: none
  double sqnr = 0.0;
};
using WeightReports = std::map<std::string, WeightReport>;  // by site name

// Chooses scales, laws and integers, and writes graph.json and model.safetensors into `folder`.
// `graph` holds the activations' QParams (ranges.h) and gets everything else. Weight sites that
// have scales already (learned ones) keep them, up to snapping.
WeightReports freeze(const FloatModel& model, Graph& graph, const std::filesystem::path& folder,
                     const nlohmann::json& manifest, const FreezeOptions& options = {});

}  // namespace qnpu
