#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/qnpu/commands.h"
#include "apps/qnpu/options.h"
#include "apps/qnpu/placement.h"
#include "apps/qnpu/program.h"
#include "apps/qnpu/progress_view.h"
#include "apps/qnpu/site_table.h"
#include "base/status.h"
#include "io/files.h"
#include "io/tokenizer.h"
#include "io/unicode.h"
#include "model/artifact.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct Options : PlanOptions {
  std::string sites = "*";
  std::vector<std::string> targets;
  int context = 1024;
  bool json = false;
};

// What an artifact or a plan has in common.
struct Inspected {
  Graph graph;
  Recipe recipe;
  json report;      // null for a plan
  json properties;  // printed before the table
};

// [{"id", "text"}]; tokens that are no whole character show as U+FFFD.
json prefix_tokens(const fs::path& folder, const Graph& graph) {
  const Tokenizer tokenizer = Tokenizer::load(folder);
  json tokens = json::array();
  for (const int id : graph.prefix_tokens) {
    tokens.push_back({{"id", id}, {"text", replace_invalid_utf8(tokenizer.decode({id}))}});
  }
  return tokens;
}

Inspected inspect_artifact(const fs::path& folder) {
  const auto artifact = load_artifact(folder);
  Inspected result;
  result.graph = artifact->graph;
  fill_weight_scales(artifact->tensors, result.graph);
  if (artifact->manifest.contains("recipe")) {
    result.recipe = recipe_from_json(artifact->manifest.at("recipe"), folder / "graph.json");
  }
  if (fs::exists(folder / "report.json")) result.report = read_json(folder / "report.json");
  result.properties = {{"artifact", folder.string()},
                       {"version", artifact->manifest.at("version")},
                       {"positions", artifact->positions},
                       {"size_bytes", folder_bytes(folder)}};
  if (result.graph.prefix_length() > 0) {
    result.properties["prefix"] = prefix_tokens(folder, result.graph);
  }
  return result;
}

Inspected inspect_plan(const fs::path& model, const std::string& recipe) {
  Inspected result;
  result.recipe = load_recipe(find_recipe(recipe));
  result.graph = build_graph(load_config(model / "config.json"), result.recipe);
  result.properties = {{"model", model.string()}};
  return result;
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

// The MLPs' width, or where layers differ the least and the greatest.
std::string mlp_text(const ModelConfig& c) {
  if (c.intermediate_sizes.empty()) return fmt::format("{}", c.intermediate_size);
  const auto [least, most] =
      std::minmax_element(c.intermediate_sizes.begin(), c.intermediate_sizes.end());
  return fmt::format("{} to {}", *least, *most);
}

std::string prefix_text(const json& tokens) {
  std::vector<std::string> parts;
  for (const json& token : tokens) {
    parts.push_back(fmt::format("{} ({})", token.at("text").dump(), token.at("id").get<int>()));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

void print_text(const Inspected& inspected, const std::vector<SiteRow>& rows) {
  for (const auto& [key, value] : inspected.properties.items()) {
    const std::string text = key == "size_bytes" ? format_bytes(value.get<int64_t>())
                             : key == "prefix"   ? prefix_text(value)
                             : value.is_string() ? value.get<std::string>()
                                                 : value.dump();
    fmt::print("{:<12} {}\n", key, text);
  }
  const ModelConfig& c = inspected.graph.config;
  fmt::print(
      "{:<12} {}: {} layers of {} ({} heads of {}, {} of keys and values), MLP {}, {} tokens\n",
      "config", c.architecture, c.num_layers, c.hidden_size, c.num_heads, c.head_dim,
      c.num_kv_heads, mlp_text(c), c.vocab_size);
  const Recipe& r = inspected.recipe;
  fmt::print("{:<12} {}: {}\n", "recipe", r.name, r.description);
  fmt::print("{:<12} R1 {}, R2 {}\n", "rotation", rotation_name(r.r1), rotation_name(r.r2));
  if (!r.deployable()) {
    fmt::print("{:<12} R3 {}, R4 {}, {} activations: to be simulated only\n", "at run time",
               rotation_name(r.r3), rotation_name(r.r4),
               r.dynamic_activations ? "dynamic" : "static");
  }
  fmt::print("{:<12} {}, {} nodes\n\n", "sites", inspected.graph.sites.size(),
             inspected.graph.nodes.size());
  print_site_rows(rows);
}

void run(const Options& options) {
  const Inspected inspected = options.artifact.empty() ? inspect_plan(options.model, options.recipe)
                                                       : inspect_artifact(options.artifact);
  const std::vector<SiteRow> rows =
      site_rows(inspected.graph, inspected.recipe, inspected.report, options.sites);
  if (rows.empty()) fail("no site is called '{}'; * stands for any characters", options.sites);
  const std::vector<Placement> placed =
      placements(inspected.graph, options.targets, options.context);
  if (!options.json) {
    print_text(inspected, rows);
    if (!placed.empty()) fmt::print("\n");
    print_placements(placed, inspected.graph.nodes.size());
    return require_placed(placed);
  }
  json object = inspected.properties;
  object["config"] = to_json(inspected.graph.config);
  object["recipe"] = to_json(inspected.recipe);
  object["site_counts"] = count_by_role(inspected.graph);
  object["nodes"] = inspected.graph.nodes.size();
  object["sites"] = to_json(rows);
  if (!placed.empty()) object["placement"] = to_json(placed);
  print_json(object);
  require_placed(placed);
}

}  // namespace

void add_inspect_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("inspect", "Widths, ranges and noise of every site, or a recipe's plan");
  command->group(kJudge)->footer(
      "qnpu inspect my-model --sites 'layers.0.*'\n"
      "qnpu inspect --model my-checkpoint --recipe default --target SM8750");
  const auto options = std::make_shared<Options>();
  const auto check_plan = add_plan_options(*command, *options);
  command->add_option("--sites", options->sites, "Only sites that match, e.g. 'layers.0.*.weight'");
  command
      ->add_option("--target", options->targets,
                   "Chips that shall compute it, with commas; exit code 1 if one cannot")
      ->delimiter(',')
      ->type_name(kTargets);
  command->add_option("--context", options->context, "Positions of the cache, for --target")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  add_json_flag(*command, options->json);
  command->callback([options, check_plan] {
    check_plan();
    run(*options);
  });
}

}  // namespace qnpu
