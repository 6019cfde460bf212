// The placement check (npu/placement.h) for the targets that a user names.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "npu/placement.h"

namespace qnpu {

struct TargetPlacement {
  Target target;
  std::vector<Misplacement> misplaced;
};
std::vector<TargetPlacement> placements(const Graph& graph, const std::vector<std::string>& targets,
                                        int context, int parts = 1);

// Adds what no target can do: the recipe's work at run time, of which the graph knows nothing.
void add_work_at_run_time(const Recipe& recipe, std::vector<TargetPlacement>& placements);

// Error: a sentence about the first target that cannot place everything.
void require_placed(const std::vector<TargetPlacement>& placements);

// By target: "placed", and of what is not the node, site and reason.
nlohmann::json to_json(const std::vector<TargetPlacement>& placements);
void print_placements(const std::vector<TargetPlacement>& placements, size_t nodes);

}  // namespace qnpu
