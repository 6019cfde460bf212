// Artifacts: what they are made of, and their sites.
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "base/status.h"
#include "io/chat_template.h"
#include "io/files.h"
#include "model/artifact.h"
#include "python/bindings.h"

namespace qnpu::python {
namespace {

namespace fs = std::filesystem;

Model load(const fs::path& folder) { return {load_artifact(folder), nullptr}; }

Recipe recipe_of(const Artifact& artifact) {
  const std::string where = (artifact.folder / "graph.json").string();
  if (!artifact.manifest.contains("recipe")) fail("{} has no recipe", where);
  return recipe_from_json(artifact.manifest.at("recipe"), where);
}

std::vector<SiteEntry> entries(const std::shared_ptr<const Graph>& graph, const Recipe& recipe,
                               const nlohmann::json& report, const std::string& pattern) {
  std::vector<SiteEntry> result;
  for (SiteRow& row : site_rows(*graph, recipe, report, pattern)) {
    result.push_back({graph, std::move(row)});
  }
  if (result.empty()) fail("no site is called '{}'; * stands for any characters", pattern);
  return result;
}

std::vector<SiteEntry> sites(const Model& model, const std::string& pattern) {
  const Artifact& artifact = *model.artifact;
  Graph graph = artifact.graph;
  fill_weight_scales(artifact.tensors, graph);
  const fs::path report = artifact.folder / "report.json";
  const bool made_by_recipe = artifact.manifest.contains("recipe");
  return entries(std::make_shared<Graph>(std::move(graph)),
                 made_by_recipe ? recipe_of(artifact) : Recipe{},
                 fs::exists(report) ? read_json(report) : nlohmann::json(), pattern);
}

std::vector<SiteEntry> plan(const fs::path& checkpoint, const Dict& recipe,
                            const std::string& pattern) {
  const Recipe read = recipe_from_json(from_dict(recipe), "the recipe");
  Graph graph = build_graph(load_config(checkpoint / "config.json"), read);
  return entries(std::make_shared<Graph>(std::move(graph)), read, {}, pattern);
}

using Message = std::map<std::string, std::string>;

std::string chat_text(const Model& model, const std::vector<Message>& messages) {
  std::vector<ChatMessage> read;
  for (const Message& message : messages) {
    if (message.size() != 2 || !message.contains("role") || !message.contains("content")) {
      fail("message {}: it must have 'role' and 'content', and nothing else", read.size());
    }
    read.push_back({message.at("role"), message.at("content")});
  }
  return chat_prompt(model.artifact->folder, read);
}

std::vector<int> chat_tokens(Model& model, const std::vector<Message>& messages) {
  // The template writes out BOS itself where the model wants one.
  return tokenizer_of(model)->encode(chat_text(model, messages), /*add_special_tokens=*/false);
}

void add_site(nb::module_& module) {
  nb::class_<SiteEntry>(module, "Site", "A place of the model where numbers are quantized.")
      .def_prop_ro("name", [](const SiteEntry& s) { return s.row.site->name; })
      .def_prop_ro(
          "role", [](const SiteEntry& s) { return role_name(s.row.site->role); },
          "What kind of number: activation, weight, table, a cache, ...")
      .def_prop_ro("dtype",
                   [](const SiteEntry& s) { return dtype_name(s.row.site->qparams.dtype); })
      .def_prop_ro(
          "bits", [](const SiteEntry& s) { return s.row.site->spec.bitwidth; },
          "Of the integers; 4-bit weights in blocks are stored as s8.")
      .def_prop_ro(
          "block_size", [](const SiteEntry& s) { return s.row.site->spec.block_size; },
          "Of weights in blocks; else 0.")
      .def_prop_ro(
          "layer", [](const SiteEntry& s) { return s.row.site->layer; },
          "-1 outside the decoder layers.")
      .def_prop_ro(
          "rows", [](const SiteEntry& s) { return s.row.site->rows; },
          "Of weights and tables; else 0.")
      .def_prop_ro(
          "cols", [](const SiteEntry& s) { return s.row.site->cols; },
          "Length of a row; 0 of scores.")
      .def_prop_ro(
          "scale", [](const SiteEntry& s) { return s.row.scale; },
          "real = scale * (q - zero_point); of a weight the largest channel's; None in a plan.")
      .def_prop_ro(
          "scales",
          [](const SiteEntry& s) {
            const std::vector<float>& scale = s.row.site->qparams.scale;
            return to_numpy(scale, {scale.size()});
          },
          nb::rv_policy::automatic, "All scales: of a weight one for each output channel.")
      .def_prop_ro("zero_point", [](const SiteEntry& s) { return s.row.zero_point; })
      .def_prop_ro(
          "low", [](const SiteEntry& s) { return s.row.low; },
          "The least real number that the integers cover.")
      .def_prop_ro(
          "high", [](const SiteEntry& s) { return s.row.high; }, "The greatest.")
      .def_prop_ro(
          "rule", [](const SiteEntry& s) { return s.row.rule; },
          "`match` of the recipe's rule that decided; empty: the default.")
      .def_prop_ro(
          "range_from", [](const SiteEntry& s) { return s.row.range_from; },
          "An observer, 'tied to' another site, 'fixed' by the operation, or 'mask'.")
      .def_prop_ro(
          "sqnr", [](const SiteEntry& s) { return s.row.sqnr; },
          "dB, as measured while quantizing; None if it was not.")
      .def("__repr__", [](const SiteEntry& s) {
        return fmt::format("<Site {} {} {}>", s.row.site->name, role_name(s.row.site->role),
                           dtype_name(s.row.site->qparams.dtype));
      });
}

}  // namespace

std::shared_ptr<const Tokenizer> tokenizer_of(Model& model) {
  if (!model.tokenizer) {
    model.tokenizer = std::make_shared<Tokenizer>(Tokenizer::load(model.artifact->folder));
  }
  return model.tokenizer;
}

void add_model(nb::module_& module) {
  add_site(module);
  nb::class_<Model>(module, "Model", "An artifact, loaded and checked.")
      .def_prop_ro("folder", [](const Model& m) { return m.artifact->folder; })
      .def_prop_ro(
          "version", [](const Model& m) { return m.artifact->manifest.at("version").get<int>(); },
          "Of the artifact's format.")
      .def_prop_ro(
          "positions", [](const Model& m) { return m.artifact->positions; }, "The longest context.")
      .def_prop_ro("vocab_size", [](const Model& m) { return m.graph().config.vocab_size; })
      .def_prop_ro(
          "config", [](const Model& m) { return to_dict(to_json(m.graph().config)); },
          "Sizes of the model.")
      .def_prop_ro(
          "recipe", [](const Model& m) { return to_dict(to_json(recipe_of(*m.artifact))); },
          "How it was quantized.")
      .def_prop_ro(
          "prefix", [](const Model& m) { return m.graph().prefix_tokens; },
          "Tokens before every sequence, whose keys and values are constants.")
      .def_prop_ro(
          "end_tokens", [](const Model& m) { return end_tokens(m.artifact->folder); },
          "Tokens that end a text.")
      .def_prop_ro("tokenizer", tokenizer_of)
      .def("sites", sites, nb::arg("match") = "*",
           "The site table, or the part of it whose names match; * stands for any characters.")
      .def("chat_text", chat_text, nb::arg("messages"),
           "The model's chat template around messages of 'role' and 'content'.")
      .def("chat_tokens", chat_tokens, nb::arg("messages"), "The same as tokens.")
      .def("__repr__",
           [](const Model& m) { return fmt::format("<Model {}>", m.artifact->folder.string()); });
  module.def("load", load, nb::arg("folder"), nb::call_guard<nb::gil_scoped_release>(),
             "Loads an artifact: maps its files and checks everything.");
  module.def("plan", plan, nb::arg("checkpoint"), nb::arg("recipe"), nb::arg("match") = "*",
             "The sites that a recipe would give a checkpoint; reads its config.json only.");
}

}  // namespace qnpu::python
