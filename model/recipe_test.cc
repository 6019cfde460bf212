#include "model/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/status.h"
#include "model/stored_recipe.h"

namespace qnpu {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

std::string error_of(const char* text) {
  try {
    recipe_from_json(json::parse(text), "r.json");
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Glob, StarMatchesAnyRun) {
  EXPECT_TRUE(glob_match("layers.*.mlp.down_proj.in", "layers.3.mlp.down_proj.in"));
  EXPECT_TRUE(glob_match("layers.*.in", "layers.12.mlp.down_proj.in"));
  EXPECT_TRUE(glob_match("*", "anything.at.all"));
  EXPECT_TRUE(glob_match("a*b*c", "a.b.b.c"));
  EXPECT_TRUE(glob_match("", ""));
  EXPECT_FALSE(glob_match("layers.*.mlp", "layers.3.mlp.down_proj"));
  EXPECT_FALSE(glob_match("layers.1.*", "layers.11.mlp"));
  EXPECT_FALSE(glob_match("", "a"));
}

TEST(Recipe, LastMatchingRuleWinsPerProperty) {
  const Recipe recipe = recipe_from_json(json::parse(R"({"name": "r", "rules": [
      {"match": "layers.*.weight", "bitwidth": 4, "observer": "mse"},
      {"match": "layers.0.*", "bitwidth": 8},
      {"match": "lm_head.weight", "bitwidth": 4}]})"),
                                         "r.json");
  std::vector<bool> used(3, false);
  QuantSpec spec;
  EXPECT_EQ(apply_rules(recipe, "layers.0.q.weight", spec, used), 1);
  EXPECT_EQ(spec.bitwidth, 8);
  EXPECT_EQ(spec.observer, Observer::kMse);
  EXPECT_EQ(used, (std::vector<bool>{true, true, false}));
  QuantSpec untouched;
  EXPECT_EQ(apply_rules(recipe, "norm.weight", untouched, used), -1);
  EXPECT_EQ(untouched, QuantSpec{});
}

TEST(Recipe, MistakesAreNamed) {
  EXPECT_THAT(error_of(R"({"name": "r", "rotations": {}})"), HasSubstr("'rotations' is not known"));
  EXPECT_THAT(error_of(R"({"rules": []})"), HasSubstr("'name' is missing"));
  EXPECT_THAT(error_of(R"({"name": "r", "rules": [{"match": "*", "bits": 4}]})"),
              AllOf(HasSubstr("rule 1"), HasSubstr("'bits'")));
  EXPECT_THAT(error_of(R"({"name": "r", "rules": [{"match": "*", "bitwidth": 5}]})"),
              HasSubstr("4, 8 or 16"));
  EXPECT_THAT(error_of(R"({"name": "r", "rules": [{"match": "*", "observer": "max"}]})"),
              AllOf(HasSubstr("'observer'"), HasSubstr("mean3sigma")));
  EXPECT_THAT(error_of(R"({"name": "r", "rotation": {"r1": "givens"}})"), HasSubstr("hadamard"));
  EXPECT_THAT(error_of(R"({"name": "r", "rules": [{"bitwidth": 4}]})"), HasSubstr("'match'"));
  EXPECT_THAT(error_of(R"([1])"), HasSubstr("object"));
  EXPECT_THAT(error_of(R"({"name": "r", "learn": {"step": 3}})"),
              AllOf(HasSubstr("(learn)"), HasSubstr("'step' is not known")));
  EXPECT_THAT(error_of(R"({"name": "r", "gptq": {"damping": -1}})"), HasSubstr("'damping'"));
  EXPECT_THAT(error_of(R"({"name": "r", "learn": {"steps": 1.5}})"), HasSubstr("an integer"));
  EXPECT_THAT(error_of(R"({"name": "r", "tune": {"transforms": true}})"),
              HasSubstr("'transforms' is not known"));
  EXPECT_THAT(error_of(R"({"name": "r", "tune": {"loss": "logits"}})"), HasSubstr("'hidden'"));
}

TEST(Recipe, JsonRoundTrip) {
  const json j = json::parse(R"({"name": "r", "description": "d", "dynamic_activations": false,
      "rotation": {"r1": "hadamard", "r2": "random", "r3": "none", "r4": "hadamard"},
      "prefix": {"max_tokens": 2}, "sensitivity": {"share": 0.25},
      "balance_heads": {"keys": false, "values": true},
      "rules": [{"match": "*", "bitwidth": 4, "symmetric": false, "observer": "percentile",
                 "percentile": 99.9, "block_size": 32, "narrow_range": true}]})");
  EXPECT_EQ(to_json(recipe_from_json(j, "r.json")), j);
}

TEST(Recipe, SectionsKeepTheirDefaults) {
  const Recipe recipe = recipe_from_json(json::parse(R"({"name": "r", "gptq": {},
                      "learn": {"steps": 7, "loss": "kl", "dynamic_inputs": true,
                                "channel_scales": true}})"),
                                         "r.json");
  EXPECT_EQ(recipe.gptq, GptqSpec{});
  EXPECT_EQ(recipe.learn->steps, 7);
  EXPECT_EQ(recipe.learn->loss, Loss::kKl);
  EXPECT_TRUE(recipe.learn->dynamic_inputs);
  EXPECT_TRUE(recipe.learn->channel_scales);
  EXPECT_FALSE(recipe.learn->output_scales);
  EXPECT_EQ(recipe.learn->length, LearnSpec{}.length);
  EXPECT_FALSE(recipe.tune || recipe.split || recipe.prefix);
  const json j = to_json(recipe);
  EXPECT_EQ(to_json(recipe_from_json(j, "r.json")), j);
}

// Keys of a newer program, at every level: an artifact stays readable, a user's slip is told.
TEST(Recipe, StoredRecipesMayHaveNewKeys) {
  json j = to_json(load_recipe(QNPU_SOURCE_DIR "/recipes/default.json"));
  const json known = j;
  j["colour"] = "red";
  j["rotation"]["r9"] = true;
  j["calibration"]["speed"] = 2;
  j["rules"].push_back({{"match", "*"}, {"shade", 1}});
  Recipe read = stored_recipe(j, "graph.json");
  read.rules.pop_back();
  EXPECT_EQ(to_json(read)["rules"], known["rules"]);
  EXPECT_EQ(read.name, known["name"]);
  EXPECT_THROW(recipe_from_json(j, "r.json"), Error);
}

// A newer word for what is known cannot be shown as another one.
TEST(Recipe, NewWordsOfStoredRecipesAreTold) {
  json j = to_json(load_recipe(QNPU_SOURCE_DIR "/recipes/default.json"));
  j["tune"]["loss"] = "telepathy";
  try {
    stored_recipe(j, "graph.json");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("telepathy"), HasSubstr("is newer")));
  }
}

}  // namespace
}  // namespace qnpu
