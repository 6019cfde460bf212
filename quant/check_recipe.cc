#include "quant/check_recipe.h"

#include <algorithm>

#include "base/status.h"
#include "quant/learn/learn.h"
#include "quant/online.h"

namespace qnpu {

void check_recipe(const Recipe& recipe, const Graph& graph, const Workers& workers) {
  if (recipe.smooth && recipe.r1 != Rotation::kNone) {
    fail(
        "recipe '{}': smooth divides by the norms' weights, but with R1 there is a rotation "
        "between a norm and its linears; leave out one of the two",
        recipe.name);
  }
  if (recipe.sensitivity && !recipe.budget.empty()) {
    fail(
        "recipe '{}': sensitivity and budget both choose 16-bit inputs of down_proj; leave out one "
        "of the two",
        recipe.name);
  }
  const bool blocks = std::any_of(graph.sites.begin(), graph.sites.end(),
                                  [](const Site& site) { return site.spec.block_size != 0; });
  if (recipe.gptq && blocks) {
    fail(
        "recipe '{}': gptq rounds weights with one scale per channel, and a rule asks for a "
        "block_size; leave out one of the two",
        recipe.name);
  }
  const bool online = recipe.r3 != Rotation::kNone || recipe.r4 != Rotation::kNone;
  if ((recipe.learn || recipe.tune) && (blocks || online)) {
    fail(
        "recipe '{}': what has blocks of weights or rotations at run time (r3, r4) cannot be "
        "learned; leave out the sections learn and tune",
        recipe.name);
  }
  const auto fixed = [](const auto& spec) { return spec && !spec->dynamic_inputs; };
  if (recipe.dynamic_activations && (fixed(recipe.learn) || fixed(recipe.tune))) {
    fail(
        "recipe '{}': with dynamic_activations no fixed scale of an input is used; set "
        "\"dynamic_inputs\": true in its sections learn and tune",
        recipe.name);
  }
  if (recipe.learn) check_learning(*recipe.learn, "learn", workers);
  if (recipe.tune) check_learning(*recipe.tune, "tune", workers);
  online_rotations(graph, recipe);  // is there a matrix of each size?
}

}  // namespace qnpu
