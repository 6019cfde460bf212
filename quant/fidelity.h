// How far a frozen artifact is from the float model that it was made of, site by site, on a short
// piece of the calibration text: where along the depth quality goes, the noise of all earlier sites
// counted. Two forward passes of one short window; between them the float model's values are kept.
//
// Watched are the inputs of all linears, the residual stream after each addition, and the logits.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "model/artifact.h"
#include "quant/calibrate.h"
#include "quant/float_model.h"

namespace qnpu {

constexpr int kFidelityTokens = 256;

// The float model's values of one window, by the names of the watched sites: [T, cols], on the CPU.
struct FloatRun {
  Window window;
  std::map<std::string, torch::Tensor> values;
};

// `model` in the basis of the artifact that will be made: a value is compared with its own.
// Memory: some 4 * T * (8 D + F) bytes of each layer, and 4 * T * V.
FloatRun run_float(const FloatModel& model, const Graph& graph, Window window);

struct Fidelity {
  int tokens = 0;                 // predicted ones
  double perplexity = 0.0;        // of the artifact
  double float_perplexity = 0.0;  // of the float model
  double kl_divergence = 0.0;     // nats per token
  double top1_agreement = 0.0;
  std::vector<std::pair<std::string, double>> sqnr;  // dB by site, in the order of the nodes
};

// The artifact in the float simulator, a layer's weights in memory at a time. Tokens that are
// attention sinks (calibrate.h) are left out of a site's SQNR.
Fidelity measure_fidelity(const FloatRun& reference, const Artifact& artifact);

// {"tokens", "perplexity", "float_perplexity", "kl_divergence", "top1_agreement",
//  "sites": [{"name", "sqnr"}]}
nlohmann::json to_json(const Fidelity& fidelity);

}  // namespace qnpu
