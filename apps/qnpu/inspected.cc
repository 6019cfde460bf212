#include "apps/qnpu/inspected.h"

#include "apps/qnpu/program.h"
#include "io/files.h"
#include "io/tokenizer.h"
#include "io/unicode.h"
#include "model/stored_recipe.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// [{"id", "text"}]; tokens that are no whole character show as U+FFFD.
json prefix_tokens(const fs::path& folder, const Graph& graph) {
  const Tokenizer tokenizer = Tokenizer::load(folder);
  json tokens = json::array();
  for (const int id : graph.prefix_tokens) {
    tokens.push_back({{"id", id}, {"text", replace_invalid_utf8(tokenizer.decode({id}))}});
  }
  return tokens;
}

// Activations, KV cache and weights by width: how many sites of each.
json count_by_role(const Graph& graph) {
  json counts = json::object();
  for (const Site& site : graph.sites) {
    json& count = counts[role_name(site.role)][dtype_name(site.qparams.dtype)];
    count = count.is_null() ? 1 : count.get<int>() + 1;
  }
  return counts;
}

}  // namespace

Inspected inspect_artifact(const Artifact& artifact) {
  const fs::path& folder = artifact.folder;
  Inspected result;
  result.graph = artifact.graph;
  result.positions = artifact.positions;
  fill_weight_scales(artifact.tensors, result.graph);
  if (artifact.manifest.contains("recipe")) {
    result.recipe = stored_recipe(artifact.manifest.at("recipe"), folder / "graph.json");
  }
  if (fs::exists(folder / "report.json")) result.report = read_json(folder / "report.json");
  result.properties = {{"artifact", folder.string()},
                       {"version", artifact.manifest.at("version")},
                       {"positions", artifact.positions},
                       {"size_bytes", folder_bytes(folder)}};
  if (result.graph.prefix_length() > 0) {
    result.properties["prefix"] = prefix_tokens(folder, result.graph);
  }
  return result;
}

Inspected inspect_plan(const fs::path& model, const std::string& recipe) {
  Inspected result;
  result.recipe = load_recipe(find_recipe(recipe));
  const ModelConfig config = load_config(model / "config.json");
  result.graph = build_graph(config, result.recipe);
  result.positions = config.max_positions;
  result.properties = {{"model", model.string()}};
  return result;
}

json to_json(const Inspected& inspected, const std::vector<SiteRow>& rows) {
  json object = inspected.properties;
  object["config"] = to_json(inspected.graph.config);
  object["recipe"] = to_json(inspected.recipe);
  object["site_counts"] = count_by_role(inspected.graph);
  object["nodes"] = inspected.graph.nodes.size();
  object["sites"] = to_json(rows);
  return object;
}

}  // namespace qnpu
