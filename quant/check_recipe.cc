#include "quant/check_recipe.h"

#include <algorithm>

#include "base/status.h"
#include "quant/learn/learn.h"
#include "quant/online.h"

namespace qnpu {

namespace {

// What takes a residual stream and norms that no rotation has touched.
void check_r1(const Recipe& recipe) {
  if (recipe.r1 == Rotation::kNone) return;
  const bool channels = recipe.learn && recipe.learn->channel_scales;
  if (recipe.smooth || channels) {
    fail(
        "recipe '{}': {} divides by the norms' weights, but with R1 there is a rotation between a "
        "norm and its linears; leave out one of the two",
        recipe.name, recipe.smooth ? "smooth" : "channel_scales");
  }
  const auto hidden = [](const auto& spec) { return spec && spec->loss == Loss::kHidden; };
  if (hidden(recipe.learn) || hidden(recipe.tune)) {
    fail(
        "recipe '{}': the loss 'hidden' compares hidden states with the float model's, which R1 "
        "turns; take the loss 'kl', or leave out R1",
        recipe.name);
  }
}

bool has_narrow_input(const Graph& graph) {
  return std::any_of(graph.nodes.begin(), graph.nodes.end(), [&](const Node& node) {
    return node.op == Op::kLinear && node.layer >= 0 &&
           bitwidth(graph.site(node.in[0]).qparams.dtype) <= 8;
  });
}

void check_flatten(const Recipe& recipe, const Graph& graph) {
  if (recipe.r1 == Rotation::kNone && recipe.r2 == Rotation::kNone) {
    fail(
        "recipe '{}': flatten turns R1 and R2 on, but both are none; give 'rotation' one of them, "
        "or leave out flatten",
        recipe.name);
  }
  const bool narrow = std::any_of(graph.sites.begin(), graph.sites.end(), [](const Site& site) {
    return site.role == Role::kWeight && site.spec.bitwidth == 4;
  });
  if (!narrow) {
    fail("recipe '{}': flatten is for 4-bit weights, and no rule asks for any; leave it out",
         recipe.name);
  }
}

// A rate 0 of weights is another matter: their integers stay, while one step of them is learned.
void check_rates(const Recipe& recipe, const char* section, const LearnSpec& spec) {
  const bool turns = spec.rotations && spec.lr_rotations == 0;
  if (!turns && !(learns_scales(spec) && spec.lr_scales == 0)) return;
  fail(
      "recipe '{}': the section {} learns nothing of its {} at the rate 0; give '{}' more than 0, "
      "or leave out their keys",
      recipe.name, section, turns ? "rotations" : "scales and norms",
      turns ? "lr_rotations" : "lr_scales");
}

// Is there what it is to learn?
void check_section(const Recipe& recipe, const Graph& graph, const char* section,
                   const LearnSpec& spec, const Workers& workers) {
  check_learning(spec, section, workers);
  check_rates(recipe, section, spec);
  if (spec.rotations && recipe.r1 == Rotation::kNone && recipe.r2 == Rotation::kNone) {
    fail(
        "recipe '{}': the section {} learns rotations, but R1 and R2 are none; give 'rotation' one "
        "of them, or leave out the key 'rotations'",
        recipe.name, section);
  }
  if (spec.input_scales && !has_narrow_input(graph)) {
    fail(
        "recipe '{}': the section {} learns scales of inputs of at most 8 bits, but all inputs of "
        "linears have 16; leave out the key 'input_scales'",
        recipe.name, section);
  }
}

}  // namespace

void check_recipe(const Recipe& recipe, const Graph& graph, const Workers& workers) {
  check_r1(recipe);
  if (recipe.tune && (recipe.tune->channel_scales || recipe.tune->rotations)) {
    fail(
        "recipe '{}': {} change weights before they are rounded; move the key from the section "
        "tune to learn",
        recipe.name, recipe.tune->rotations ? "rotations" : "channel_scales");
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
  if (recipe.gptq && recipe.dynamic_activations) {
    fail(
        "recipe '{}': gptq rounds weights for the fixed scales of the linears' inputs, which "
        "dynamic_activations does not use; leave out one of the two",
        recipe.name);
  }
  if (recipe.flatten) check_flatten(recipe, graph);
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
  if (recipe.learn) check_section(recipe, graph, "learn", *recipe.learn, workers);
  if (recipe.tune) check_section(recipe, graph, "tune", *recipe.tune, workers);
  online_rotations(graph, recipe);  // is there a matrix of each size?
}

}  // namespace qnpu
