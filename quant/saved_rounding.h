// The weights that rounding layer by layer chose, on disk, so that a run that is stopped while it
// tunes need not round again.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "model/graph.h"
#include "quant/calibrate.h"
#include "quant/float_model.h"
#include "quant/layerwise.h"

namespace qnpu {

// Of everything that rounding depends on.
std::string rounding_fingerprint(const FloatModel& model, const Graph& graph,
                                 const std::vector<Window>& windows, const GptqSpec& spec);

void save_rounding(const std::filesystem::path& path, const std::string& fingerprint,
                   const FloatModel& model, const Graph& graph, const RoundingReports& reports);

// Weights into `model`, scales into `graph`. False if there is no such file; Error if it belongs to
// another run.
bool load_rounding(const std::filesystem::path& path, const std::string& fingerprint,
                   FloatModel& model, Graph& graph, RoundingReports& reports);

}  // namespace qnpu
