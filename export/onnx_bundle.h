// `qnpu export --to onnx`: a prefill and a decode graph of an artifact in one folder, with one file
// of weights, and what a program needs to know to feed them.
//
//   prefill.onnx, decode.onnx   static QDQ graphs (decoder.h); of several parts
//                               prefill.part01.onnx ...
//   weights.bin                 their large constants, shared
//   rope.safetensors            cos and sin by position, for whoever feeds them
//   export.json                 sizes, inputs and outputs, sites of both graphs
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "export/decoder.h"

namespace qnpu {

// Writes into `folder`, which exists (a staging folder); returns the content of export.json.
// `options.rows` are those of the prefill graph; the decode graph has one. Error, as below too, of
// an artifact that can only be simulated.
nlohmann::json write_onnx(const Artifact& artifact, const DecoderOptions& options,
                          const std::filesystem::path& folder);

// `--to aimet`: both graphs in float, and beside each its parameters as AIMET's encodings 0.6.1,
// 1.0.0 and 2.0.0 (prefill.1.0.0.encodings ...), for qairt-converter --quantization_overrides.
// Returns `graphs`, with the files of their parts, and `weight_bytes`.
nlohmann::json write_float_with_encodings(const Artifact& artifact, const DecoderOptions& options,
                                          const std::filesystem::path& folder);

}  // namespace qnpu
