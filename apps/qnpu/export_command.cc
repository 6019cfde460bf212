#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/qnpu/bundles.h"
#include "apps/qnpu/commands.h"
#include "apps/qnpu/interrupt.h"
#include "apps/qnpu/options.h"
#include "apps/qnpu/placement.h"
#include "apps/qnpu/program.h"
#include "apps/qnpu/run_log.h"
#include "export/onnx_bundle.h"
#include "io/files.h"
#include "model/artifact.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kMark = "export.json";
constexpr const char* kFormat = "quantnpu-";

struct Options : ArtifactOptions {
  fs::path out;
  std::string to = "onnx";
  std::string logits = "last";
  std::string rope = "inputs";
  BundleOptions bundle;
  RunOptions run;
};

json write(const Options& o, const Artifact& artifact, const fs::path& folder, Progress& progress) {
  if (o.to == "onnx") return write_onnx(artifact, o.bundle.graph, folder);
  if (o.to == "aimet") return write_float_with_encodings(artifact, o.bundle.graph, folder);
  if (o.to == "qnn") return export_qnn(artifact, o.bundle, folder, progress);
  if (o.to == "genie") return export_genie(artifact, o.bundle, folder, progress);
  return export_ort_genai(artifact, o.bundle, folder, progress);
}

// Others make folders of such files too; by this one the next export knows that it may be replaced.
void mark_as_export(const Options& o, const fs::path& folder) {
  if (fs::exists(folder / kMark)) return;  // of graphs, which it describes
  write_json(folder / kMark, {{"format", fmt::format("{}{}", kFormat, o.to)},
                              {"context", o.bundle.graph.context},
                              {"rows", o.bundle.graph.rows}});
}

void print_graphs(const json& result) {
  for (const auto& [name, graph] : result.at("graphs").items()) {
    for (const json& part : graph.at("parts")) {
      fmt::print("{:<19} {} nodes, {} rows\n", part.at("file").get<std::string>(),
                 part.at("nodes").get<int>(), graph.at("rows").get<int>());
    }
  }
  fmt::print("{:<19} {}\n", "weights.bin", format_bytes(result.at("weight_bytes").get<int64_t>()));
}

void print_compiled(const json& result) {
  fmt::print("{:<8} {:<14} {:>10} {:>8} {:>14} {:>9} {:>10}\n", "SoC", "graph", "operations",
             "on NPU", "float tensors", "seconds", "memory");
  for (const auto& [soc, compiled] : result.items()) {
    for (const auto& [name, graph] : compiled.at("graphs").items()) {
      fmt::print("{:<8} {:<14} {:>10} {:>8} {:>14} {:>9.1f} {:>10}\n", soc, name,
                 graph.at("operations").get<int>(), "all", graph.at("float_tensors").get<int>(),
                 graph.at("seconds").get<double>(),
                 format_bytes(graph.at("peak_bytes").get<int64_t>()));
    }
    for (const auto& [name, bytes] : compiled.at("binaries").items()) {
      fmt::print("{:<8} {} {}\n", soc, name, format_bytes(bytes.get<int64_t>()));
    }
  }
}

void run(Options o) {
  o.bundle.graph.all_logits = o.logits == "all";
  o.bundle.graph.rope = o.rope == "tables" ? RopeInput::kPositions : RopeInput::kCosSin;
  if (o.bundle.socs.empty()) o.bundle.socs = {"SM8750"};
  const bool compiled = o.to != "onnx" && o.to != "aimet";
  const auto artifact = load_artifact(o.artifact);
  choose_parts(*artifact, o.bundle.graph.part);
  if (!compiled) {
    for (const std::string& soc : o.bundle.socs) find_target(soc);
  } else {  // before hours of compiling
    const auto found = placements(artifact->graph, o.bundle.socs, o.bundle.graph.context,
                                  o.bundle.graph.part.count);
    require_placed(found);
    // As the compiler's tools know them, whatever the letters' case.
    for (size_t i = 0; i < found.size(); ++i) o.bundle.socs[i] = found[i].target.name;
  }
  check_target(o.out, kMark, kFormat, "earlier export");
  check_apart(o.run.folder, o.out);
  begin_run(o.run);
  StagedFolder out(o.out);
  json result;
  {
    Progress progress(o.run.quiet);
    result = write(o, *artifact, out.path(), progress);
    mark_as_export(o, out.path());
  }
  check_interrupted();
  out.commit();
  log_result(result);
  if (o.json) return print_json(result);
  if (!compiled) print_graphs(result);
  if (result.contains(o.bundle.socs[0])) print_compiled(result);
  fmt::print("{}\n", o.out.string());
}

}  // namespace

void add_export_command(CLI::App& app) {
  const auto o = std::make_shared<Options>();
  DecoderOptions& graph = o->bundle.graph;
  CLI::App* command =
      app.add_subcommand("export", "Write an artifact as graphs or bundles for an NPU");
  command->group(kNpu)->footer(
      "qnpu export my-model --out my-graphs\n"
      "qnpu export my-model --to genie --soc SM8750 --out my-bundle");
  add_artifact_options(*command, *o);
  command->add_option("--out", o->out, "Folder to write")->required()->type_name(kFolder);
  command
      ->add_option(
          "--to", o->to,
          "onnx: QDQ graphs; qnn: compiled; genie, ort-genai: bundles; aimet: float, and encodings")
      ->check(CLI::IsMember({"onnx", "qnn", "genie", "ort-genai", "aimet"}))
      ->capture_default_str();
  command->add_option("--soc", o->bundle.socs, "To compile for, with commas")
      ->delimiter(',')
      ->type_name(kTargets)
      ->default_str("SM8750");
  add_graph_options(*command, graph);
  command->add_option("--logits", o->logits, "Of a prefill's last row, or of all")
      ->check(CLI::IsMember({"last", "all"}))
      ->group(kGraphGroup)
      ->capture_default_str();
  command->add_option("--rope", o->rope, "cos and sin as inputs, or tables in the graph")
      ->check(CLI::IsMember({"inputs", "tables"}))
      ->group(kGraphGroup)
      ->capture_default_str();
  command
      ->add_flag("!--separate", o->bundle.share,
                 "A binary for each graph, which the emulator can load; weights are in both")
      ->group(kGraphGroup);
  command->add_flag("--trace", graph.trace, "Every site is an output, to look inside")
      ->group(kGraphGroup);
  add_run_options(*command, o->run);
  command->callback([o] { run(*o); });
}

}  // namespace qnpu
