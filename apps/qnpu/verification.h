// Holds the integer runtime against who else runs an artifact's exported graphs: the emulator of
// the NPU, or ONNX Runtime on the CPU.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "apps/qnpu/progress.h"
#include "apps/qnpu/traced_sites.h"
#include "export/decoder.h"

namespace qnpu {

struct Judge {
  std::string on = "htp-emulator";  // or "onnxruntime"
  std::string soc = "SM8750";
};

// Of a text's predictions, all but the last token's, whose successor is not known.
struct LogitsComparison {
  int64_t tokens = 0;
  double perplexity = 0, their_perplexity = 0;
  double kl_divergence = 0;    // KL(ours || theirs), nats per token
  double token_agreement = 0;  // share of tokens with the same likeliest successor
  SiteDifference logits;
  // Of the tokens that we wrote greedily, how many the other one would have written there too.
  int64_t greedy = 0, greedy_equal = 0;
  double seconds = 0, their_seconds = 0;
  nlohmann::json compiled;  // what the compiler says; null on the CPU
};

// What docs/numerics.md says of an operation and the emulator, given the same inputs.
struct Agreement {
  std::string text;          // for people
  double least_equal = 1.0;  // of all values of the operation
  int64_t most = 0;          // steps between any two
};

// One node's output, ours and theirs: from the same inputs, and as both run freely.
struct SiteComparison {
  std::string site;
  Op op = Op::kAdd;
  Agreement asked;
  SiteDifference same_inputs, free;
};

// An empty folder for the files of a check, in place of those of an earlier one. Error if others'
// files are there.
void renew_folder(const std::filesystem::path& folder);

// The first sentence about what does not agree as asked; empty if all does.
std::string disagreement(const std::vector<SiteComparison>& sites);

class Verification {
 public:
  // Graphs, their compiled form and logs are kept in `work` and made again only if the artifact,
  // an option or this program has changed.
  Verification(std::shared_ptr<const Artifact> artifact, DecoderOptions options, Judge judge,
               std::filesystem::path work, Progress& progress);

  // The first `prefill` tokens in pieces of the prefill graph, the rest one by one. The last
  // `greedy` tokens are those that we wrote ourselves.
  LogitsComparison compare_logits(const std::vector<int32_t>& tokens, int prefill, int greedy);
  // Node by node on at most as many tokens as the graph has rows; in order of execution.
  std::vector<SiteComparison> compare_sites(std::vector<int32_t> tokens);

 private:
  nlohmann::json prepare(const std::filesystem::path& folder, const DecoderOptions& options,
                         const std::vector<std::string>& graphs);
  nlohmann::json emulate(const std::filesystem::path& folder, const std::vector<int32_t>& tokens,
                         int prefill);

  std::shared_ptr<const Artifact> artifact_;
  DecoderOptions options_;
  Judge judge_;
  std::filesystem::path work_;
  Progress& progress_;
};

}  // namespace qnpu
