#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/qnpu/commands.h"
#include "apps/qnpu/inspected.h"
#include "apps/qnpu/options.h"
#include "apps/qnpu/placement.h"
#include "apps/qnpu/program.h"
#include "apps/qnpu/progress_view.h"
#include "apps/qnpu/site_table.h"
#include "base/status.h"
#include "model/artifact.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct Options : PlanOptions {
  std::string sites = "*";
  std::vector<std::string> targets;
  std::optional<int> context;
  bool json = false;
};

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
  const Inspected inspected = options.artifact.empty()
                                  ? inspect_plan(options.model, options.recipe)
                                  : inspect_artifact(*load_artifact(options.artifact));
  const std::vector<SiteRow> rows =
      site_rows(inspected.graph, inspected.recipe, inspected.report, options.sites);
  if (rows.empty()) fail("no site is called '{}'; * stands for any characters", options.sites);
  std::vector<TargetPlacement> placed;
  if (!options.targets.empty()) {
    const fs::path& whose = options.artifact.empty() ? options.model : options.artifact;
    placed = placements(inspected.graph, options.targets,
                        graph_context(options.context, inspected.positions, whose));
  }
  add_work_at_run_time(inspected.recipe, placed);
  if (!options.json) {
    print_text(inspected, rows);
    if (!placed.empty()) fmt::print("\n");
    print_placements(placed, inspected.graph.nodes.size());
    return require_placed(placed);
  }
  json object = to_json(inspected, rows);
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
  command
      ->add_option("--context", options->context,
                   "Positions of the cache, for --target (default: 1024, or fewer where the model "
                   "has fewer)")
      ->check(positive_integer());
  add_json_flag(*command, options->json);
  command->callback([options, check_plan] {
    check_plan();
    run(*options);
  });
}

}  // namespace qnpu
