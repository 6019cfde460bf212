// What `qnpu export` writes for the NPU: compiled graphs, alone or as a runtime's bundle. All are
// made in `folder`, a staging folder.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/qnpu/progress.h"
#include "export/decoder.h"

namespace qnpu {

struct BundleOptions {
  DecoderOptions graph;
  std::vector<std::string> socs;
  // One binary for both graphs, which share their weights. The emulator cannot load such a one.
  bool share = true;
  bool in_order = false;  // the parts' names in the binaries come in order: Genie reads them so
};

// Context binaries and the ONNX files that wrap them, for each SoC. The result is compile.py's, by
// SoC.
nlohmann::json export_qnn(const Artifact& artifact, const BundleOptions& options,
                          const std::filesystem::path& folder, Progress& progress);

// For Genie: binaries, genie_config.json, htp_backend_ext_config.json, tokenizer. One SoC.
nlohmann::json export_genie(const Artifact& artifact, const BundleOptions& options,
                            const std::filesystem::path& folder, Progress& progress);

// For onnxruntime-genai: genai_config.json, the pipeline's stages, tokenizer. One SoC.
nlohmann::json export_ort_genai(const Artifact& artifact, const BundleOptions& options,
                                const std::filesystem::path& folder, Progress& progress);

}  // namespace qnpu
