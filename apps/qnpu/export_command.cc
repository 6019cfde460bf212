#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/qnpu/commands.h"
#include "apps/qnpu/program.h"
#include "base/status.h"
#include "export/onnx_bundle.h"
#include "io/files.h"
#include "model/artifact.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;

struct Options {
  fs::path artifact;
  fs::path out;
  std::string to = "onnx";
  int rows = 128;
  int context = 1024;
  std::string logits = "last";
  std::string rope = "inputs";
  std::string names = "genie";
  bool trace = false;
  bool json = false;
};

DecoderOptions decoder_options(const Options& o) {
  DecoderOptions options;
  options.rows = o.rows;
  options.context = o.context;
  options.all_logits = o.logits == "all";
  options.rope = o.rope == "tables" ? RopeInput::kPositions : RopeInput::kCosSin;
  options.names = o.names == "genie" ? genie_names() : ort_genai_names();
  options.trace = o.trace;
  return options;
}

void run(const Options& o) {
  const auto artifact = load_artifact(o.artifact);
  StagedFolder out(o.out);
  const nlohmann::json result = write_onnx(*artifact, decoder_options(o), out.path());
  out.commit();
  if (o.json) {
    fmt::print("{}\n", result.dump(1));
    return;
  }
  for (const auto& [name, graph] : result.at("graphs").items()) {
    fmt::print("{}: {} nodes, {} rows\n", graph.at("file").get<std::string>(),
               graph.at("nodes").get<int>(), graph.at("rows").get<int>());
  }
  fmt::print("weights.bin: {:.1f} MB\n", result.at("weight_bytes").get<double>() / 1e6);
}

}  // namespace

void add_export_command(CLI::App& app) {
  const auto o = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("export", "Write an artifact as graphs for an NPU");
  command->add_option("artifact", o->artifact, "Folder that `qnpu quantize` wrote")->required();
  command->add_option("--out", o->out, "Folder to write")->required();
  command->add_option("--to", o->to, "onnx")->check(CLI::IsMember({"onnx"}));
  command->add_option("--rows", o->rows, "Tokens that the prefill graph takes");
  command->add_option("--context", o->context, "Positions of the cache, the prefix included");
  command->add_option("--logits", o->logits, "Of the last row of a prefill, or of all")
      ->check(CLI::IsMember({"last", "all"}));
  command->add_option("--rope", o->rope, "cos and sin as inputs, or tables in the graph")
      ->check(CLI::IsMember({"inputs", "tables"}));
  command->add_option("--names", o->names, "Whose names inputs and outputs have")
      ->check(CLI::IsMember({"genie", "ort-genai"}));
  command->add_flag("--trace", o->trace, "Every site is an output, to look inside");
  command->add_flag("--json", o->json, "Print one JSON object");
  command->callback([o] { run(*o); });
}

}  // namespace qnpu
