// A recipe: how a model shall be quantized, as data (docs/recipes.md has every key). JSON:
//
//   {"name": "w4a8kv8", "description": "...",
//    "rotation": {"r1": "hadamard", "r2": "hadamard"},          // or "random", or "none"
//    "sample": {...},                                           // more calibration text
//    "prefix": {...}, "split": {...}, "smooth": {...}, "balance_heads": {...},  // exact
//    "flatten": {...},                                          // better rotations
//    "sensitivity": {...}, "learn": {...}, "gptq": {...}, "tune": {...},
//    "budget": "16bit<=0%,size<=90MB",                          // widths are chosen within it
//    "rules": [{"match": "layers.*.weight", "bitwidth": 4, "observer": "mse"}, ...]}
//
// A section that is absent is not done. `match` is a glob over site names (`*` stands for any run
// of characters); rules are tried in order and the last that matches a site and sets a property
// wins. An unknown key, a value that is not allowed, or a rule that matches no site is an Error
// that names it.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace qnpu {

// How a site's range is chosen from what was observed.
enum class Observer {
  kAuto,  // rotated and at most 4 bits: mean3sigma; otherwise minmax (method.md 1.6)
  kMinMax,
  kPercentile,  // `percentile` of the values on each side
  kMean3Sigma,  // max |mean -+ 3 sigma|
  kMse,         // the clip that minimises the mean squared error
};

enum class Rotation { kNone, kHadamard, kRandom };

// What is wished of a site; the numbers that were chosen for it are QParams.
struct QuantSpec {
  int bitwidth = 8;
  bool symmetric = true;
  Observer observer = Observer::kAuto;
  double percentile = 99.99;
  int block_size = 0;  // weights: inputs that share a block scale; 0: one scale per output channel
  bool narrow_range = true;  // 4-bit weights: without the integer -8
  bool operator==(const QuantSpec&) const = default;
};

struct Rule {
  std::string match;
  int bitwidth = 0;         // 0: not set by this rule
  int symmetric = -1;       // -1: not set
  int observer = -1;        // -1: not set, else an Observer
  double percentile = 0.0;  // 0: not set
  int block_size = -1;      // -1: not set, 0: per channel
  int narrow_range = -1;    // -1: not set
};

// How much text is calibrated with, if the user does not say.
struct CalibrationSpec {
  int samples = 16;   // windows, at most; shared evenly by several texts
  int length = 2048;  // tokens of each
  bool operator==(const CalibrationSpec&) const = default;
};

// Text that the model writes itself, beside the texts that are given: the kinds it was trained on.
struct SampleSpec {
  int tokens = 16384;
  bool operator==(const SampleSpec&) const = default;
};

// Attention-sink tokens, found automatically, whose K and V are constants of the artifact.
struct PrefixSpec {
  int max_tokens = 1;
  bool operator==(const PrefixSpec&) const = default;
};

// Outlier channels of down_proj's input are split into copies: channel j into
// m_j = ceil(max_j / (ratio * median of all max)) of them, each divided by m_j, and by a further
// factor of at most `balance` that moves from up_proj's rows to down_proj's columns. With
// `equalize` every channel has a factor, above or below 1, that lets it fill the ranges better.
struct SplitSpec {
  double ratio = 4.0;
  double balance = 2.0;  // not used with equalize
  bool equalize = false;
  int multiple = 32;  // the widened MLP is filled up to a multiple of this
  bool operator==(const SplitSpec&) const = default;
};

// SmoothQuant: s_j = max|x_j|^alpha / max|w_j|^(1 - alpha) moves from activations to weights.
struct SmoothSpec {
  double alpha = 0.5;
  bool operator==(const SmoothSpec&) const = default;
};

// What q and k, v and o_proj exchange, so that one scale fits all heads (quant/balance_heads.h).
struct BalanceHeadsSpec {
  bool keys = true;    // by RoPE pairs of q and k
  bool values = true;  // by channels of v and o_proj
  bool operator==(const BalanceHeadsSpec&) const = default;
};

// R1 and R2 turned on from where they start, until few weights stand out (quant/flatten.h).
struct FlattenSpec {
  int steps = 200;  // of R1
  bool operator==(const FlattenSpec&) const = default;
};

// The most sensitive inputs of down_proj (method.md 1.9, Eq. 4) get 16 bits.
struct SensitivitySpec {
  double share = 0.1;  // of the layers, rounded up
  bool operator==(const SensitivitySpec&) const = default;
};

// Weights rounded layer by layer, each error spread over the weights not yet rounded.
struct GptqSpec {
  double damping = 0.01;  // times the mean of the Hessian's diagonal
  bool order = true;      // columns by falling diagonal
  bool feedback = true;   // the targets are the float model's outputs, not those of the rounded one
  int windows = 0;        // of the calibration text, at most; 0: all
  bool operator==(const GptqSpec&) const = default;
};

enum class Loss {
  kCrossEntropy,  // of the next token
  kKl,            // KL divergence from the float model's logits
  kHidden,        // mean squared difference from the float model's normed last hidden states
};
enum class Optimizer { kSgd, kAdam };

// Gradient descent through the quantized model, from start to end of a cosine.
struct LearnSpec {
  int steps = 512;
  int sequences = 1;  // of one step
  int length = 2048;  // tokens of each
  bool rotations = false;
  bool input_scales = false;
  bool weight_scales = false;
  bool weights = false;           // the weights before rounding
  bool norms = false;             // norm weights, at the scales' rate; not with rotations
  bool channel_scales = false;    // what moves from channels of activations into weights
  bool quantize_weights = true;   // false: learn for the activations alone
  bool quantize_outputs = false;  // outputs of linears, K and V too, by ranges seen before learning
  bool output_scales = false;     // learned scales for the outputs of linears
  bool dynamic_inputs = false;    // each token's input of a linear has the scale max|x| / qmax
  Loss loss = Loss::kCrossEntropy;
  Optimizer optimizer = Optimizer::kSgd;
  double momentum = 0.0;
  double lr_rotations = 0.1;
  double lr_scales = 0.01;
  double lr_weights = 1e-4;
  int local_steps = 0;        // first steps that add the activations' own quantization error
  double local_weight = 1.0;  // of that error, each relative to the mean square of its values
  int warmup = 0;             // steps of linearly rising rates
  bool operator==(const LearnSpec&) const = default;
};

struct Recipe {
  std::string name;
  std::string description;
  Rotation r1 = Rotation::kNone;
  Rotation r2 = Rotation::kNone;
  // Online Hadamard rotations of q and k after RoPE, and of down_proj's input: in the float
  // simulator alone.
  Rotation r3 = Rotation::kNone;
  Rotation r4 = Rotation::kNone;
  bool dynamic_activations = false;  // a scale per token: in the float simulator alone
  std::optional<CalibrationSpec> calibration;
  std::optional<SampleSpec> sample;
  std::optional<PrefixSpec> prefix;
  std::optional<SplitSpec> split;
  std::optional<SmoothSpec> smooth;
  std::optional<BalanceHeadsSpec> balance_heads;
  std::optional<FlattenSpec> flatten;
  std::optional<SensitivitySpec> sensitivity;
  std::optional<LearnSpec> learn;  // stage one: before weights are rounded
  std::optional<GptqSpec> gptq;
  std::optional<LearnSpec> tune;  // after gptq
  std::string budget;             // widths are chosen within it (model/budget.h); empty: none are
  std::vector<Rule> rules;

  // Can an artifact be made of it, or does only the simulator run it?
  bool deployable() const {
    return r3 == Rotation::kNone && r4 == Rotation::kNone && !dynamic_activations;
  }
};

Recipe load_recipe(const std::filesystem::path& path);
Recipe recipe_from_json(const nlohmann::json& json, const std::string& where);
nlohmann::json to_json(Recipe recipe);

const char* observer_name(Observer observer);
Observer observer_from_name(const std::string& name);  // Error on another name
const char* rotation_name(Rotation rotation);

// `*` matches any run of characters, dots included; everything else is literal.
bool glob_match(const std::string& pattern, const std::string& name);

// Applies the rules to `spec` (the site's default). Returns the index of the last rule that changed
// something, or -1; sets `used[i]` for every rule that matched.
int apply_rules(const Recipe& recipe, const std::string& site, QuantSpec& spec,
                std::vector<bool>& used);

}  // namespace qnpu
