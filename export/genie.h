// Configuration of Genie, Qualcomm's runtime for language models, for an exported decoder.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "model/artifact.h"

namespace qnpu {

struct GenieSettings {
  std::vector<std::string> binaries;  // names of the context binaries, beside the configuration
  int context = 1024;                 // C of the graphs (decoder.h)
  int bos_token = -1;                 // put in front of every prompt; -1: none
  std::vector<int> end_tokens;
};

// The dialog's configuration. Positions are counted by Genie and looked up in the graphs' own
// tables (RopeInput::kPositions), so that cos and sin are those of the integer runtime to the bit.
nlohmann::json genie_config(const Artifact& artifact, const GenieSettings& settings);

// What its key "extensions" names: the device's SoC.
nlohmann::json genie_backend_config(int soc_model, const std::string& dsp_arch);

}  // namespace qnpu
