// The fields of a recipe's sections in JSON, one list for each: f reads or writes them
// (recipe_json.cc). Numbers have their bounds behind them, words stand in the order of their enum.
#pragma once

#include "model/recipe.h"

namespace qnpu {

inline constexpr const char* kRotations[] = {"none", "hadamard", "random"};
inline constexpr const char* kOnlineRotations[] = {"none", "hadamard"};
inline constexpr const char* kLosses[] = {"cross_entropy", "kl", "hidden"};
inline constexpr const char* kOptimizers[] = {"sgd", "adam"};

template <typename F>
void fields(F& f, CalibrationSpec& s) {
  f.number("samples", s.samples, 1, 1 << 20);
  f.number("length", s.length, 2, 1 << 20);
}

template <typename F>
void fields(F& f, SampleSpec& s) {
  f.number("tokens", s.tokens, 1, 1 << 24);
}

template <typename F>
void fields(F& f, PrefixSpec& s) {
  f.number("max_tokens", s.max_tokens, 1, 64);
}

template <typename F>
void fields(F& f, SplitSpec& s) {
  f.number("ratio", s.ratio, 1.0, 1e6);
  f.number("balance", s.balance, 1.0, 1e6);
  f.flag("equalize", s.equalize);
  f.number("multiple", s.multiple, 1, 1024);
}

template <typename F>
void fields(F& f, SmoothSpec& s) {
  f.number("alpha", s.alpha, 0.0, 1.0);
}

template <typename F>
void fields(F& f, BalanceHeadsSpec& s) {
  f.flag("keys", s.keys);
  f.flag("values", s.values);
}

template <typename F>
void fields(F& f, FlattenSpec& s) {
  f.number("steps", s.steps, 1, 1 << 20);
}

template <typename F>
void fields(F& f, SensitivitySpec& s) {
  f.number("share", s.share, 0.0, 1.0);
}

template <typename F>
void fields(F& f, GptqSpec& s) {
  f.number("damping", s.damping, 1e-8, 1e3);
  f.flag("order", s.order);
  f.flag("feedback", s.feedback);
  f.number("windows", s.windows, 0, 1 << 20);
}

template <typename F>
void fields(F& f, LearnSpec& s) {
  f.number("steps", s.steps, 1, 1 << 20);
  f.number("sequences", s.sequences, 1, 1 << 16);
  f.number("length", s.length, 2, 1 << 20);
  f.flag("rotations", s.rotations);
  f.flag("input_scales", s.input_scales);
  f.flag("weight_scales", s.weight_scales);
  f.flag("weights", s.weights);
  f.flag("norms", s.norms);
  f.flag("channel_scales", s.channel_scales);
  f.flag("quantize_weights", s.quantize_weights);
  f.flag("quantize_outputs", s.quantize_outputs);
  f.flag("output_scales", s.output_scales);
  f.flag("dynamic_inputs", s.dynamic_inputs);
  f.word("loss", s.loss, kLosses);
  f.word("optimizer", s.optimizer, kOptimizers);
  f.number("momentum", s.momentum, 0.0, 1.0);
  f.number("lr_rotations", s.lr_rotations, 0.0, 1e3);
  f.number("lr_scales", s.lr_scales, 0.0, 1e3);
  f.number("lr_weights", s.lr_weights, 0.0, 1e3);
  f.number("local_steps", s.local_steps, 0, 1 << 20);
  f.number("local_weight", s.local_weight, 0.0, 1e6);
  f.number("warmup", s.warmup, 0, 1 << 20);
}

// Everything but the name, the budget, the rotations and the rules.
template <typename F>
void fields(F& f, Recipe& r) {
  f.text("description", r.description);
  f.flag("dynamic_activations", r.dynamic_activations);
  f.section("calibration", r.calibration);
  f.section("sample", r.sample);
  f.section("prefix", r.prefix);
  f.section("split", r.split);
  f.section("smooth", r.smooth);
  f.section("balance_heads", r.balance_heads);
  f.section("flatten", r.flatten);
  f.section("sensitivity", r.sensitivity);
  f.section("learn", r.learn);
  f.section("gptq", r.gptq);
  f.section("tune", r.tune);
}

// The section "rotation": a recipe's own members.
struct RotationFields {
  Rotation &r1, &r2, &r3, &r4;
};

template <typename F>
void fields(F& f, RotationFields s) {
  f.word("r1", s.r1, kRotations);
  f.word("r2", s.r2, kRotations);
  f.word("r3", s.r3, kOnlineRotations);
  f.word("r4", s.r4, kOnlineRotations);
}

}  // namespace qnpu
