#include "apps/qnpu/placement.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/qnpu/program.h"
#include "base/status.h"
#include "model/artifact.h"

namespace qnpu {

using nlohmann::json;

std::vector<TargetPlacement> placements(const Graph& graph, const std::vector<std::string>& targets,
                                        int context, int parts) {
  std::vector<TargetPlacement> result;
  for (const std::string& name : targets) {
    const Target target = load_target(find_target(name));
    result.push_back({target, misplaced(graph, target, context, parts)});
  }
  return result;
}

void add_work_at_run_time(const Recipe& recipe, std::vector<TargetPlacement>& placements) {
  const std::string reason = simulated_only(recipe);
  if (reason.empty()) return;
  for (TargetPlacement& p : placements) {
    p.misplaced.push_back(
        {"", "", fmt::format("the recipe {}, which can only be simulated", reason)});
  }
}

void require_placed(const std::vector<TargetPlacement>& placements) {
  for (const TargetPlacement& p : placements) {
    if (!p.misplaced.empty()) fail("{}", placement_sentence(p.target, p.misplaced));
  }
}

json to_json(const std::vector<TargetPlacement>& placements) {
  json object = json::object();
  for (const TargetPlacement& p : placements) {
    json problems = json::array();
    for (const Misplacement& m : p.misplaced) {
      problems.push_back({{"node", m.node}, {"site", m.site}, {"reason", m.reason}});
    }
    object[p.target.name] = {{"placed", p.misplaced.empty()}, {"problems", problems}};
  }
  return object;
}

void print_placements(const std::vector<TargetPlacement>& placements, size_t nodes) {
  for (const TargetPlacement& p : placements) {
    if (p.misplaced.empty()) {
      fmt::print("{:<12} places all {} nodes in integers\n", p.target.name, nodes);
    }
    for (const Misplacement& m : p.misplaced) {
      fmt::print("{:<12} {:<44} {}\n", p.target.name, m.site.empty() ? "(graph)" : m.site,
                 m.reason);
    }
  }
}

}  // namespace qnpu
