// For tests: quantize() on a tiny model, with little text, English of the repository.
#pragma once

#include "quant/quantize.h"
#include "quant/test_models.h"

namespace qnpu {

// One of recipes/, by its name; text of the model's own, where it asks for any, is short.
inline Recipe test_recipe(const std::string& name) {
  Recipe recipe = load_recipe(source_folder() / "recipes" / (name + ".json"));
  if (recipe.sample) recipe.sample->tokens = 64;
  return recipe;
}

inline QuantizeOptions test_run(const std::string& model, const Recipe& recipe,
                                const std::filesystem::path& out) {
  QuantizeOptions options;
  options.model = tiny_model_folder(model);
  options.recipe = recipe;
  options.calibration = {source_folder() / "LICENSE"};
  options.samples = 2;
  options.length = 48;
  options.out = out;
  return options;
}

}  // namespace qnpu
