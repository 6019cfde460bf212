// The recipe that an artifact keeps for people (docs/artifact.md).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "model/recipe.h"

namespace qnpu {

// As recipe_from_json, but keys that are not known are ignored: a newer program may have added
// them without a new version of the artifact.
Recipe stored_recipe(const nlohmann::json& json, const std::string& where);

}  // namespace qnpu
