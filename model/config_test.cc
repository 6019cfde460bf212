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

TEST(Config, QwenSlidingWindowSwitchedOffIsAccepted) {
  json j = with("sliding_window", 32768);
  EXPECT_THAT(error_of(j), HasSubstr("sliding-window"));
  j["use_sliding_window"] = false;
  EXPECT_EQ(error_of(j), "no error");
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
