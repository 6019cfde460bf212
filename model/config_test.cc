#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/status.h"

namespace qnpu {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json smollm2() {
  return json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "vocab_size": 49152, "hidden_size": 576,
    "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "rms_norm_eps": 1e-05, "rope_theta": 100000,
    "max_position_embeddings": 8192, "tie_word_embeddings": true, "hidden_act": "silu"})");
}

std::string error_of(const json& j) {
  try {
    config_from_huggingface(j, "config.json");
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

json with(const char* key, const json& value) {
  json j = smollm2();
  j[key] = value;
  return j;
}

TEST(Config, ReadsLlama) {
  const ModelConfig c = config_from_huggingface(smollm2(), "config.json");
  EXPECT_EQ(c.architecture, "llama");
  EXPECT_EQ(c.head_dim, 64);  // derived
  EXPECT_EQ(c.rope_theta, 100000.0);
  EXPECT_TRUE(c.tied_embeddings);
  EXPECT_FALSE(c.qkv_bias);
  EXPECT_FALSE(c.qk_norm);
}

TEST(Config, GivenHeadDimWins) {
  EXPECT_EQ(config_from_huggingface(with("head_dim", 128), "c").head_dim, 128);
}

TEST(Config, OldAndNewRopeFormsAgree) {
  const json scaling = {{"rope_type", "llama3"},
                        {"factor", 32.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 8192}};
  json old_form = with("rope_scaling", scaling);
  old_form["rope_theta"] = 500000.0;
  json new_form = smollm2();
  new_form.erase("rope_theta");
  new_form["rope_parameters"] = scaling;
  new_form["rope_parameters"]["rope_theta"] = 500000.0;
  EXPECT_EQ(config_from_huggingface(old_form, "c"), config_from_huggingface(new_form, "c"));
  EXPECT_EQ(config_from_huggingface(old_form, "c").rope_scaling.factor, 32.0);
}

TEST(Config, QwenArchitectures) {
  const auto qwen2 =
      config_from_huggingface(with("architectures", json::array({"Qwen2ForCausalLM"})), "c");
  EXPECT_TRUE(qwen2.qkv_bias);
  EXPECT_FALSE(qwen2.o_bias);
  const auto qwen3 =
      config_from_huggingface(with("architectures", json::array({"Qwen3ForCausalLM"})), "c");
  EXPECT_TRUE(qwen3.qk_norm);
  EXPECT_FALSE(qwen3.qkv_bias);
}

json qwen2(const char* key, const json& value) {
  json j = with(key, value);
  j["architectures"] = {"Qwen2ForCausalLM"};
  return j;
}

json mistral(const char* key, const json& value) {
  json j = with(key, value);
  j["architectures"] = {"MistralForCausalLM"};
  return j;
}

// Defaults are those of transformers' configuration of each family.
TEST(Config, SlidingWindows) {
  EXPECT_THAT(error_of(with("sliding_window", 4096)), HasSubstr("sliding-window"));
  EXPECT_EQ(error_of(with("sliding_window", 8192)), "no error");  // the longest text fits
  json used = qwen2("sliding_window", 4096);
  EXPECT_EQ(error_of(used), "no error");
  used["use_sliding_window"] = true;
  EXPECT_THAT(error_of(used), HasSubstr("sliding_window = 4096"));
  json ignored = mistral("sliding_window", 4096);
  ignored["use_sliding_window"] = false;  // which Mistral does not know
  EXPECT_THAT(error_of(ignored), HasSubstr("sliding-window"));
  EXPECT_EQ(error_of(mistral("sliding_window", nullptr)), "no error");
  EXPECT_THAT(error_of(mistral("rms_norm_eps", 1e-5)), HasSubstr("Mistral's default"));
  EXPECT_EQ(error_of(mistral("max_position_embeddings", 4096)), "no error");
  EXPECT_THAT(error_of(qwen2("layer_types", {"full_attention", "sliding_attention"})),
              HasSubstr("\"sliding_attention\""));
  EXPECT_EQ(error_of(qwen2("layer_types", json(30, "full_attention"))), "no error");
}

TEST(Config, BiasesAsTheFamilyKnowsThem) {
  EXPECT_TRUE(config_from_huggingface(with("attention_bias", true), "c").o_bias);
  EXPECT_FALSE(config_from_huggingface(qwen2("attention_bias", true), "c").o_bias);
  json j = mistral("attention_bias", true);
  j["sliding_window"] = nullptr;
  EXPECT_FALSE(config_from_huggingface(j, "c").qkv_bias);
}

TEST(Config, TypeCountsWhereTheClassContradicts) {
  json j = with("model_type", "mistral");  // the class is Llama's
  EXPECT_THAT(error_of(j), HasSubstr("Mistral's default"));
  j["architectures"] = {"LlamaForSequenceClassification"};
  EXPECT_THAT(error_of(j), HasSubstr("'LlamaForSequenceClassification' is not supported"));
}

TEST(Config, RopeSaidTwice) {
  const json scaling = {{"rope_type", "llama3"},
                        {"factor", 32.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 8192},
                        {"rope_theta", 500000.0}};
  json j = with("rope_scaling", scaling);
  EXPECT_EQ(config_from_huggingface(j, "c").rope_theta, 500000.0);  // not the one beside it
  j["rope_parameters"] = scaling;
  EXPECT_EQ(error_of(j), "no error");
  j["rope_parameters"]["factor"] = 8.0;
  EXPECT_THAT(error_of(j), HasSubstr("contradict each other"));
  j = with("rope_scaling", scaling);
  j["original_max_position_embeddings"] = 4096;
  EXPECT_THAT(error_of(j), HasSubstr("two different values of original_max_position_embeddings"));
  j["rope_scaling"].erase("original_max_position_embeddings");
  EXPECT_EQ(config_from_huggingface(j, "c").rope_scaling.original_max_position, 4096);
  j["rope_scaling"].erase("low_freq_factor");
  EXPECT_THAT(error_of(j), HasSubstr("'low_freq_factor' is missing"));
}

TEST(Config, OneSentencePerMistake) {
  EXPECT_THAT(
      error_of(with("architectures", json::array({"GemmaForCausalLM"}))),
      AllOf(HasSubstr("'GemmaForCausalLM' is not supported"), HasSubstr("Qwen3ForCausalLM")));
  EXPECT_THAT(error_of(with("vocab_size", nullptr)), HasSubstr("'vocab_size' is missing"));
  EXPECT_THAT(error_of(with("hidden_size", "576")), HasSubstr("'hidden_size' must be a positive"));
  EXPECT_THAT(error_of(with("num_key_value_heads", 2)), HasSubstr("not a multiple"));
  EXPECT_THAT(error_of(with("rope_scaling", {{"rope_type", "yarn"}})), HasSubstr("'yarn'"));
  EXPECT_THAT(error_of(with("hidden_act", "gelu")), HasSubstr("'gelu'"));
  EXPECT_THAT(error_of(with("quantization_config", json::object())),
              HasSubstr("already quantized"));
  EXPECT_THAT(error_of(with("compression_config", json::object())), HasSubstr("already quantized"));
  EXPECT_THAT(error_of(with("is_causal", false)), HasSubstr("is_causal"));
  EXPECT_THAT(error_of(with("partial_rotary_factor", 0.5)), HasSubstr("partial_rotary_factor"));
  EXPECT_THAT(error_of(with("rope_parameters", {{"full_attention", {{"rope_theta", 1e6}}}})),
              HasSubstr("rope of its own for 'full_attention'"));
  EXPECT_THAT(error_of(with("rope_scaling", "yarn")), HasSubstr("must be objects"));
  EXPECT_THAT(error_of(json::array()), HasSubstr("JSON object"));
}

TEST(Config, SizesHaveBounds) {
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads", "head_dim", "max_position_embeddings"}) {
    json j = with(key, 2147483646);
    if (!j.contains("head_dim")) j["head_dim"] = 64;
    EXPECT_THAT(error_of(j), AllOf(HasSubstr(key), HasSubstr("must be from 1 to")));
  }
  json stored = to_json(config_from_huggingface(smollm2(), "c"));
  stored["num_kv_heads"] = 0;
  EXPECT_THROW(config_from_json(stored), Error);
}

TEST(Config, JsonRoundTrip) {
  json j = with("rope_scaling", {{"rope_type", "llama3"},
                                 {"factor", 8.0},
                                 {"low_freq_factor", 1.0},
                                 {"high_freq_factor", 4.0},
                                 {"original_max_position_embeddings", 8192}});
  const ModelConfig c = config_from_huggingface(j, "c");
  EXPECT_EQ(config_from_json(to_json(c)), c);
}

TEST(Config, LayersMayHaveTheirOwnMlpSize) {
  ModelConfig c = config_from_huggingface(smollm2(), "c");
  EXPECT_EQ(c.mlp_size(29), 1536);
  EXPECT_FALSE(to_json(c).contains("intermediate_sizes"));
  c.intermediate_sizes.assign(30, 1536);
  c.intermediate_sizes[7] = 1552;
  EXPECT_EQ(c.mlp_size(7), 1552);
  EXPECT_EQ(c.mlp_size(8), 1536);
  EXPECT_EQ(config_from_json(to_json(c)), c);
  json damaged = to_json(c);
  for (const json& sizes : {json::array({1536}), json(std::vector<int>(30, 1537)), json("wide")}) {
    damaged["intermediate_sizes"] = sizes;
    EXPECT_THROW(config_from_json(damaged), Error) << sizes;
  }
}

TEST(Config, LlamaScalingKeepsShortAndStretchesLongWavelengths) {
  ModelConfig plain = config_from_huggingface(smollm2(), "c");
  ModelConfig scaled = plain;
  scaled.rope_scaling = {8.0, 1.0, 4.0, 8192};
  const auto f = rope_inverse_frequencies(plain);
  const auto g = rope_inverse_frequencies(scaled);
  ASSERT_EQ(f.size(), 32u);
  EXPECT_DOUBLE_EQ(f[0], 1.0);
  EXPECT_DOUBLE_EQ(g[0], f[0]);
  EXPECT_DOUBLE_EQ(g[31], f[31] / 8.0);
}

}  // namespace
}  // namespace qnpu
