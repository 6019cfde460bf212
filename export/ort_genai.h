// onnxruntime-genai's "decoder-pipeline" around an exported decoder: its configuration, and the two
// small graphs that run on the CPU before and behind the NPU's.
//
//   inputs.onnx   input_ids, attention_mask [1, L] -> npu_mask u16 [1, s, L], npu_positions [1, s]
//   head.onnx     npu_logits u16 of the last row -> logits, real
//
// The caches are windowed: new entries come in from the right and push old ones out to the left, so
// a token's position is the number of visible columns before its own.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "model/artifact.h"

namespace qnpu {

// A compiled graph of the NPU, with the names of its inputs and outputs.
struct NpuStage {
  std::string file;
  std::vector<std::string> inputs, outputs;
};

struct OrtGenaiSettings {
  int rows = 128;                                       // N of the prefill graph
  int context = 1024;                                   // C of the graphs (decoder.h)
  std::vector<NpuStage> prefill, decode;                // the parts in order
  std::map<std::string, std::string> provider_options;  // of QNN; "backend_path" is the device's
  std::vector<int> end_tokens;
  int bos_token = -1;
};

nlohmann::json ort_genai_config(const Artifact& artifact, const OrtGenaiSettings& settings);

// Writes inputs.onnx and head.onnx.
void write_ort_genai_stages(const Artifact& artifact, int context,
                            const std::filesystem::path& folder);

}  // namespace qnpu
