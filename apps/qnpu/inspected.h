// What `qnpu inspect` says of an artifact or a plan, which the report shows too.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/qnpu/site_table.h"
#include "model/artifact.h"
#include "model/recipe.h"

namespace qnpu {

// What an artifact or a plan has in common.
struct Inspected {
  Graph graph;
  int positions = 0;  // the longest context
  Recipe recipe;
  nlohmann::json report;      // null for a plan
  nlohmann::json properties;  // printed before the table
};

Inspected inspect_artifact(const Artifact& artifact);

// The sites that a recipe would give, before anything is computed.
Inspected inspect_plan(const std::filesystem::path& model, const std::string& recipe);

// The object of `qnpu inspect --json`, with these sites.
nlohmann::json to_json(const Inspected& inspected, const std::vector<SiteRow>& rows);

}  // namespace qnpu
