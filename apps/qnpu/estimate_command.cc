#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/qnpu/commands.h"
#include "apps/qnpu/options.h"
#include "apps/qnpu/program.h"
#include "apps/qnpu/progress_view.h"
#include "base/status.h"
#include "model/artifact.h"
#include "npu/calibration.h"
#include "npu/cost.h"

namespace qnpu {
namespace {

using nlohmann::json;

struct Options : PlanOptions {
  std::vector<std::string> targets = {"SM8650", "SM8750"};
  int rows = 128;
  std::optional<int> context;
  bool all_logits = false;
  bool json = false;
};

struct Row {
  std::string graph;  // "prefill" or "decode"
  CostEstimate estimate;
};

// What is estimated, and the longest context that it has.
struct Estimated {
  Graph graph;
  int positions = 0;
};

Estimated estimated(const Options& o) {
  if (!o.artifact.empty()) {
    const auto artifact = load_artifact(o.artifact);
    check_deployable(*artifact);
    return {artifact->graph, artifact->positions};
  }
  const Recipe recipe = load_recipe(find_recipe(o.recipe));
  const std::string reason = simulated_only(recipe);
  if (!reason.empty()) {
    fail("recipe '{}' {}, which no NPU's static graph does: there is nothing to estimate",
         recipe.name, reason);
  }
  const ModelConfig config = load_config(o.model / "config.json");
  return {build_graph(config, recipe), config.max_positions};
}

void print_text(const std::vector<Row>& rows, const CostModel& model) {
  const auto off = [&](const char* kind) { return 100 * (model.held_back.at(kind).typical - 1); };
  fmt::print(
      "An estimate, not a measurement. Of published figures held back from its fit it is "
      "typically\n"
      "off by {:.0f} % (prefill), {:.0f} % (decode), {:.0f} % (energy); docs/cost.md.\n\n",
      off("prefill"), off("decode"), off("energy"));
  fmt::print("{:<8} {:<8} {:>5} {:>8} {:>10} {:>9} {:>9} {:>10} {:>10}  {}\n", "target", "graph",
             "rows", "context", "time", "tokens/s", "energy", "memory", "moved", "share of time");
  for (const auto& [graph, e] : rows) {
    std::string shares;
    for (const auto& [kind, share] : e.shares) {
      shares += fmt::format("{}{} {:.0f} %", shares.empty() ? "" : ", ", kind, 100 * share);
    }
    fmt::print("{:<8} {:<8} {:>5} {:>8} {:>7.2f} ms {:>9.1f} {:>7.3f} J {:>10} {:>10}  {}\n",
               e.target, graph, e.rows, e.context, 1e3 * e.seconds, e.tokens_per_second(), e.joules,
               format_bytes(e.weight_bytes + e.cache_bytes), format_bytes(e.moved_bytes), shares);
  }
}

json to_json(const std::vector<Row>& rows, const CostModel& model) {
  json object = {{"estimate", true}, {"model", to_json(model)}, {"graphs", json::array()}};
  for (const auto& [graph, e] : rows) {
    object["graphs"].push_back(to_json(e));
    object["graphs"].back()["graph"] = graph;
  }
  return object;
}

void run(const Options& o) {
  const CostModel model = load_cost_model(find_shared("npu/cost.json"));
  const auto [graph, positions] = estimated(o);
  const int context =
      graph_context(o.context, positions, o.artifact.empty() ? o.model : o.artifact);
  std::vector<Row> rows;
  for (const std::string& name : o.targets) {
    const Target target = load_target(find_target(name));
    for (const auto& [kind, count] : {std::pair("prefill", o.rows), std::pair("decode", 1)}) {
      rows.push_back(
          {kind, estimate(graph, target, model.parameters, count, context, o.all_logits)});
    }
  }
  if (o.json) return print_json(to_json(rows, model));
  print_text(rows, model);
}

}  // namespace

void add_estimate_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("estimate", "Time, energy and memory on a phone, from published figures");
  command->group(kNpu)->footer(
      "qnpu estimate my-model --target SM8650,SM8750\n"
      "qnpu estimate --model my-checkpoint --recipe fast");
  const auto o = std::make_shared<Options>();
  const auto check_plan = add_plan_options(*command, *o);
  command->add_option("--target", o->targets, "Chips, with commas")
      ->delimiter(',')
      ->type_name(kTargets)
      ->default_str("SM8650,SM8750");
  command->add_option("--rows", o->rows, "Tokens of a prefill")->capture_default_str();
  command->add_option("--context", o->context,
                      "Positions of the cache, the prefix included (default: 1024, or fewer where "
                      "the model has fewer)");
  command->add_flag("--all-logits", o->all_logits,
                    "The head computes every row, as in a Genie bundle");
  add_json_flag(*command, o->json);
  command->callback([o, check_plan] {
    check_plan();
    run(*o);
  });
}

}  // namespace qnpu
