// The node list of an artifact as a static QDQ graph for N new tokens in a context of C positions.
//
// Goal: every tensor of the graph is stored in integers under the name of its site, and each
// operation keeps one width, so that the NPU's compiler takes the graph whole and computes what the
// integer runtime computes. P is the length of the artifact's prefix, L = C - P what a user sees.
//
//   inputs   input_ids int32 [1, N]
//            attention_mask u16 [1, N, L]: 65535 visible, 0 masked; the new tokens are its last N
//            columns, and row i may see the columns up to its own;
//            position_ids_cos, position_ids_sin u16 [1, N, hd / 2], or position_ids int32 [1, N]
//            (RopeInput);
//            of each layer past keys u8 [KV, 1, hd, L - N] and past values u8 [KV, 1, L - N, hd]
//   outputs  new keys u8 [KV, 1, hd, N] and values u8 [KV, 1, N, hd], behind RoPE, at the scale and
//            zero point of the past ones
//            logits u16 [1, N, V], or [1, 1, V] of the last row
//
// Of several parts (parts.h) each has the inputs and outputs of its own layers; token ids enter the
// first one, logits leave the last one, and between two the residual stream, u16 [N, D], has the
// name of its site.
//
// Keys and values of the prefix are constants in the graph, always visible, in front of the past.
// This is the contract that Genie and onnxruntime-genai share; they differ in names only.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "export/onnx_graph.h"
#include "export/parts.h"
#include "model/artifact.h"

namespace qnpu {

// Names of inputs and outputs; {} is the layer.
struct DecoderNames {
  std::string mask, positions, logits;
  std::string past_key, past_value, new_key, new_value;
};
DecoderNames genie_names();      // past_key_{}_in ...
DecoderNames ort_genai_names();  // past_keys_{}_in ..., npu_mask: other stages make them

enum class RopeInput {
  kCosSin,     // rows of the tables, chosen by the caller: row P for its first token
  kPositions,  // position ids, 0 for the first token behind the prefix; the tables are constants
};

// Scores that one operation computes at most. Measured, for a layer of 9 heads: 590 000 compile in
// 0.25 s, 885 000 in 1.3 s, 1 200 000 in 2.8 s.
constexpr int64_t kMostScores = 600'000;

struct DecoderOptions {
  int rows = 128;      // N
  int context = 1024;  // C
  bool all_logits = false;
  Part part;  // write_onnx writes all of them
  RopeInput rope = RopeInput::kCosSin;
  DecoderNames names = genie_names();
  Form form = Form::kQdq;
  int64_t most_scores = kMostScores;
  bool trace = false;  // every site is an output, under its own name
};

// Where a site's integers are found in the graph.
struct SitePlace {
  std::string tensor;
  Shape shape;
};

struct DecoderModel {
  onnx::ModelProto model;
  std::map<std::string, SitePlace> sites;  // activations that the graph stores, by the site's name
  std::vector<Encoding> encodings;         // of Form::kFloat's tensors
};

// How the NPU stores a site's integers: unsigned, 128 or 32768 added. Error: a width it has not.
Quantized stored_as(const Site& site);

// Error if the artifact has no such context, a site whose width the NPU does not have, or a law
// that the NPU would not make from its scales.
DecoderModel make_decoder(const Artifact& artifact, const DecoderOptions& options,
                          WeightFile& weights);

}  // namespace qnpu
