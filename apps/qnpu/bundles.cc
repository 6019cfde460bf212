#include "apps/qnpu/bundles.h"

#include "apps/qnpu/compilation.h"
#include "base/status.h"
#include "export/genie.h"
#include "export/onnx_bundle.h"
#include "export/ort_genai.h"
#include "io/chat_template.h"
#include "io/files.h"
#include "io/tokenizer.h"
#include "io/tokenizer_files.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const std::string& only_soc(const BundleOptions& options) {
  if (options.socs.size() != 1) fail("a bundle is for one SoC; give one with --soc");
  return options.socs[0];
}

// The tokens that a tokenizer puts in front of every text: at most one, else -1.
int leading_token(const fs::path& folder) {
  const Tokenizer tokenizer = Tokenizer::load(folder);
  const std::vector<int> tokens = tokenizer.encode("", /*add_special_tokens=*/true);
  return tokens.empty() ? -1 : tokens.front();
}

// The graphs as runtimes want them: positions looked up in the graph.
json compile_for_runtime(const Artifact& artifact, BundleOptions options, const DecoderNames& names,
                         bool all_logits, const fs::path& folder, Progress& progress) {
  options.graph.names = names;
  options.graph.rope = RopeInput::kPositions;
  options.graph.all_logits = all_logits;
  return export_qnn(artifact, options, folder, progress);
}

// What only the compiler read, and its logs.
void remove_sources(const json& about, const fs::path& folder) {
  for (const auto& [name, graph] : about.at("graphs").items()) {
    for (const json& part : graph.at("parts")) fs::remove(folder / part.at("file"));
  }
  for (const char* name : {"weights.bin", "rope.safetensors", "export.json"}) {
    fs::remove(folder / name);
  }
  std::vector<fs::path> logs;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".log") logs.push_back(entry.path());
  }
  for (const fs::path& log : logs) fs::remove(log);
}

// The parts of a graph, compiled.
std::vector<NpuStage> stages_of(const json& graph, const json& compiled) {
  const auto names = [](const json& values) {
    std::vector<std::string> found;
    for (const json& value : values) found.push_back(value.at("name"));
    return found;
  };
  std::vector<NpuStage> stages;
  for (const json& part : graph.at("parts")) {
    const json& made = compiled.at("graphs").at(part.at("name").get<std::string>());
    stages.push_back({made.at("file"), names(part.at("inputs")), names(part.at("outputs"))});
  }
  return stages;
}

}  // namespace

json export_qnn(const Artifact& artifact, const BundleOptions& options, const fs::path& folder,
                Progress& progress) {
  write_onnx(artifact, options.graph, folder);
  json result = json::object();
  for (const std::string& soc : options.socs) {
    result[soc] = compile_graphs(
        folder, {.soc = soc, .share = options.share, .in_order = options.in_order}, progress);
  }
  return result;
}

json export_genie(const Artifact& artifact, const BundleOptions& given, const fs::path& folder,
                  Progress& progress) {
  BundleOptions options = given;
  options.in_order = true;
  const std::string& soc = only_soc(options);
  // Rows are filled from the left: a prompt may end in any.
  json result = compile_for_runtime(artifact, options, genie_names(), true, folder, progress);
  GenieSettings settings;
  for (const auto& [name, bytes] : result[soc].at("binaries").items()) {
    settings.binaries.push_back(name);
  }
  settings.context = options.graph.context;
  settings.bos_token = leading_token(artifact.folder);
  settings.end_tokens = end_tokens(artifact.folder);
  write_json(folder / "genie_config.json", genie_config(artifact, settings));
  write_json(folder / "htp_backend_ext_config.json",
             genie_backend_config(result[soc].at("soc_model").get<int>(),
                                  result[soc].at("htp_arch").get<std::string>()));
  copy_tokenizer(artifact.folder, folder);
  remove_sources(read_json(folder / "export.json"), folder);
  for (const auto& [name, graph] : result[soc].at("graphs").items()) {
    fs::remove(folder / graph.at("file"));  // Genie reads the binaries themselves
  }
  return result;
}

json export_ort_genai(const Artifact& artifact, const BundleOptions& options,
                      const fs::path& folder, Progress& progress) {
  const std::string& soc = only_soc(options);
  // Windows are aligned to the right: a prompt ends in the last row.
  json result = compile_for_runtime(artifact, options, ort_genai_names(), false, folder, progress);
  OrtGenaiSettings settings;
  settings.rows = options.graph.rows;
  settings.context = options.graph.context;
  const json about = read_json(folder / "export.json");
  settings.prefill = stages_of(about.at("graphs").at("prefill"), result[soc]);
  settings.decode = stages_of(about.at("graphs").at("decode"), result[soc]);
  settings.provider_options = {
      {"backend_path", "libQnnHtp.so"},
      {"htp_arch", result[soc].at("htp_arch").get<std::string>().substr(1)},
      {"soc_model", std::to_string(result[soc].at("soc_model").get<int>())},
      {"htp_graph_finalization_optimization_mode", "3"}};
  settings.end_tokens = end_tokens(artifact.folder);
  settings.bos_token = leading_token(artifact.folder);
  write_json(folder / "genai_config.json", ort_genai_config(artifact, settings));
  write_ort_genai_stages(artifact, options.graph.context, folder);
  copy_tokenizer(artifact.folder, folder);
  remove_sources(about, folder);
  return result;
}

}  // namespace qnpu
