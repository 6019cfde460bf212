#include "quant/estimate.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/status.h"
#include "model/budget.h"
#include "quant/calibration_text.h"
#include "quant/flatten.h"
#include "quant/matmul.h"
#include "quant/tensor.h"

namespace qnpu {
namespace {

// ---- shapes ----

struct Shapes {
  double layers = 0, hidden = 0, vocab = 0;
  double linear = 0;     // weights of the layers' linears
  double head = 0;       // of the head, and of the embedding
  double values = 0;     // of a token, over all sites of the layers but scores
  double heads = 0;      // query heads of all layers: scores per token and position
  double attention = 0;  // operations per token and position
  double moments = 0;    // sum of K^2 over the linears' inputs
  double residuals = 0;  // sum of N K over the linears whose outputs are added to the stream
  double cubes = 0;      // sum of N K^2 over linears
  double widest = 0;     // largest K
  double groups = 0;     // of linears with one input, 4-bit
  double nodes = 0;
};

Shapes shapes_of(const Graph& graph) {
  Shapes s;
  s.layers = graph.config.num_layers;
  s.hidden = graph.config.hidden_size;
  s.vocab = graph.config.vocab_size;
  s.head = s.hidden * s.vocab;
  s.nodes = static_cast<double>(graph.nodes.size());
  std::set<int> inputs;
  for (const Node& node : graph.nodes) {
    if (node.layer < 0) continue;
    const Site& out = graph.site(node.out);
    if (out.role != Role::kScores) s.values += out.cols;
    if (node.op == Op::kScores) {
      s.heads += node.heads;
      s.attention += 4.0 * graph.site(node.in[0]).cols;
    }
    if (node.op != Op::kLinear) continue;
    const double n = graph.site(node.weight).rows, k = graph.site(node.weight).cols;
    s.linear += n * k;
    s.cubes += n * k * k;
    s.widest = std::max(s.widest, k);
    if (n == s.hidden && node.name.ends_with("o_proj")) s.residuals += n * k;
    if (node.name.ends_with("down_proj")) s.residuals += n * k;
    if (!inputs.insert(node.in[0]).second) continue;
    s.moments += k * k;
    s.groups += graph.site(node.weight).spec.bitwidth == 4 ? 1 : 0;
  }
  return s;
}

// ---- work ----

// Shares of the measured peaks that real work reaches, and passes that an operation is worth.
constexpr double kProductShare = 0.8;
constexpr double kLearningShare = 0.52;
constexpr double kScorePasses = 5.0;      // scale, mask, softmax, context
constexpr double kObservePasses = 4.0;    // extremes, sums, histogram
constexpr double kRoundPasses = 1.0;      // of the quantized stream's values
constexpr double kGptqOperations = 20.0;  // times N K^2
constexpr double kKlPasses = 6.0;
constexpr double kLoadPasses = 9.0, kFreezePasses = 10.0;
constexpr double kSecondsPerCall = 15e-6;

// Threads pass each other values and wait for each other, which a speed measured on one operation
// does not show: of what the first thread does, each further one adds this share.
constexpr double kFurtherThread = 0.4;

struct Work {
  double bf16 = 0, fp32 = 0, values = 0, calls = 0;

  Work operator+(const Work& o) const {
    return {bf16 + o.bf16, fp32 + o.fp32, values + o.values, calls + o.calls};
  }
  Work operator*(double times) const {
    return {bf16 * times, fp32 * times, values * times, calls * times};
  }
};

class Estimator {
 public:
  Estimator(const Graph& graph, const Recipe& recipe, const Workload& load,
            const MachineSpeed& speed)
      : s_(shapes_of(graph)),
        recipe_(recipe),
        load_(load),
        speed_(speed),
        fast_(gains_from_bf16(graph.config.hidden_size)),
        mlp_(s_.widest) {}

  Estimate run() {
    add("load", {.values = kLoadPasses * weights()});
    if (load_.sampled_tokens > 0) add("sample", sampling());
    if (recipe_.prefix) add("prefix", prefix() * recipe_.prefix->max_tokens);
    if (recipe_.smooth) add("smooth", channel_maxima());
    if (recipe_.balance_heads) add("balance", channel_maxima());
    if (recipe_.split) add("split", forward(range_windows(), load_.length));
    if (recipe_.r1 != Rotation::kNone) add("rotate", {.fp32 = 4.0 * s_.hidden * weights()});
    if (recipe_.flatten) add("flatten", flattening());
    if (recipe_.sensitivity) add("sensitivity", forward(4, std::min(load_.length, 2048)) * 2.0);
    if (!recipe_.budget.empty()) add("widths", widths());
    add("calibrate", calibrate() * (recipe_.learn ? 2.0 : 1.0), load_.processes);
    if (recipe_.learn) add_learning("learn", *recipe_.learn);
    if (recipe_.gptq) add_rounding(*recipe_.gptq);
    if (recipe_.tune) add_learning("tune", *recipe_.tune);
    add("freeze", {.values = kFreezePasses * weights()});
    for (auto& [step, seconds] : result_.seconds) {
      seconds *= speed_.threads / (1.0 + kFurtherThread * (speed_.threads - 1));
      result_.total += seconds;
    }
    result_.peak_bytes = static_cast<int64_t>(peak());
    return std::move(result_);
  }

 private:
  double weights() const { return s_.linear + 2.0 * s_.head; }

  double seconds(const Work& work) const {
    return work.bf16 / (kProductShare * speed_.bf16) + work.fp32 / (kProductShare * speed_.fp32) +
           work.values / speed_.values + work.calls * kSecondsPerCall;
  }
  // The processes measure a speed that they share; work that each of them does whole takes as many
  // times as long as there are processes, and this is what they measure.
  void add(const std::string& step, const Work& work, int shared_by = 1) {
    result_.seconds[step] += seconds(work) / shared_by;
  }

  Work products(double operations) const {
    return fast_ ? Work{.bf16 = operations} : Work{.fp32 = operations};
  }

  // Of the layers, window by window.
  Work forward(double windows, double length) const {
    const double tokens = windows * length;
    Work work = products(2.0 * s_.linear * tokens);
    work.fp32 += s_.attention * length * tokens;
    work.values += s_.values * tokens + kScorePasses * s_.heads * length * tokens;
    if (fast_) work.values += s_.linear * windows;
    work.calls = s_.nodes * windows;
    return work;
  }

  Work head(double tokens) const {
    Work work = products(2.0 * s_.head * tokens);
    work.values = s_.vocab * tokens;
    return work;
  }

  double range_windows() const { return std::min(load_.windows, range_window_count(load_.length)); }

  // As smoothing and balancing look at them.
  Work channel_maxima() const { return forward(8, std::min(load_.length, 1024)); }

  // Sequences of 256 tokens, a token of each at a time.
  Work sampling() const {
    const double steps = 256, sequences = load_.sampled_tokens / steps;
    return {.fp32 = 2.0 * (s_.linear + s_.head) * steps * sequences,
            .values = (s_.linear + s_.head + sequences * s_.vocab) * steps,
            .calls = s_.nodes * steps};
  }

  // Eight candidates and none, on 8 windows and on 24 beginnings of 16 tokens.
  Work prefix() const {
    return (forward(8, std::min(load_.length, 128)) + forward(24, std::min(load_.length, 16))) *
           9.0;
  }

  // Each step turns a part of the weights, twice, and itself with products of its matrix.
  Work flattening() const {
    const double steps = recipe_.flatten->steps, n = s_.hidden;
    return {.fp32 = (4.0 * n * s_.linear / kFlattenParts + 20.0 * n * n * n) * steps,
            .values = 8.0 * s_.linear / kFlattenParts * steps,
            .calls = s_.nodes * steps};
  }

  // A forward in fp32 for each group, on average of half the layers, of 4 windows of 128 tokens.
  Work widths() const {
    const double length = std::min(load_.length, 128);
    const double tokens = std::min(load_.windows, 4) * length;
    const bool inputs = parse_budget(recipe_.budget).wide_share > 0.0;
    const double groups = s_.groups + 2.0 + (inputs ? s_.layers : 0.0);
    return Work{.fp32 = (s_.linear + 2.0 * s_.head + s_.attention * length / 2) * tokens,
                .values = (s_.values / 2 + kKlPasses * s_.vocab) * tokens,
                .calls = s_.nodes / 2} *
           groups;
  }

  Work calibrate() const {
    const double windows = range_windows(), tokens = windows * load_.length;
    const Work observed{.values = kObservePasses * (s_.values + s_.vocab) * tokens};
    return forward(windows, load_.length) + head(tokens) + observed;
  }

  void add_rounding(const GptqSpec& spec) {
    const double windows = spec.windows > 0 ? std::min(spec.windows, load_.windows) : load_.windows;
    const double tokens = windows * load_.length;
    Work stream = forward(windows, load_.length) * (spec.feedback ? 2.0 : 1.0);
    stream.values += kRoundPasses * s_.values * tokens;
    stream = stream + products(2.0 * s_.moments * tokens * (spec.feedback ? 2.0 : 1.0));
    if (spec.feedback) stream = stream + products(2.0 * s_.residuals * tokens);
    add("round", stream, load_.processes);
    add("round", {.fp32 = kGptqOperations * s_.cubes});
  }

  void add_learning(const std::string& section, const LearnSpec& spec) {
    const bool teacher = spec.loss != Loss::kCrossEntropy;
    const double head = spec.loss == Loss::kHidden ? 0.0 : s_.head;
    const double student = 8.0 * s_.linear + 4.0 * head;
    const double both = student + (teacher ? 2.0 * (s_.linear + head) : 0.0);
    const double tokens = double{1.0} * spec.sequences * spec.length;
    const double judged = 2.0 * (s_.linear + s_.head) * (teacher ? 4.0 : 3.0);
    const double speed = kLearningShare * (fast_ ? speed_.bf16 : speed_.fp32);
    double total = (spec.steps * both * tokens + judged * load_.held_out_tokens) / speed;
    if (spec.rotations) {
      total += spec.steps * seconds({.fp32 = 6.0 * s_.hidden * weights()});
    }
    result_.seconds[section] = total / load_.processes;
  }

  // ---- memory, in bytes ----

  double peak() const {
    constexpr double kProgram = 0.23e9;           // libraries, tokenizer, texts
    const double logits = 12.0 * 256 * s_.vocab;  // of a chunk of tokens, three times
    double most = 16.0 * s_.head;                 // the embedding, being rotated in fp64
    if (recipe_.gptq) most = std::max(most, rounding_bytes(*recipe_.gptq));
    for (const auto& spec : {recipe_.learn, recipe_.tune}) {
      if (spec) most = std::max(most, learning_bytes(*spec));
    }
    return kProgram + logits + held(4.0 * weights()) + most;
  }

  // Of `bytes` of weights: all, or if they lie in files, a layer's (old, rotated, rounded) and the
  // tables', whose pages are touched again and again.
  double held(double bytes) const {
    if (!load_.spilled) return bytes;
    return std::min(bytes, 12.0 * s_.linear / s_.layers + 8.0 * s_.head);
  }

  double rounding_bytes(const GptqSpec& spec) const {
    const double windows = spec.windows > 0 ? std::min(spec.windows, load_.windows) : load_.windows;
    const double tokens = windows * load_.length / load_.processes;
    const double stream = 2.3 * 4.0 * (s_.hidden + mlp_) * tokens;  // 2.3: measured
    const double teacher = recipe_.tune || recipe_.learn ? held(4.0 * weights()) : 0.0;
    return (load_.spilled ? 0.0 : 4.0 * s_.linear) + stream * (spec.feedback ? 2.0 : 1.0) +
           teacher + 48.0 * s_.widest * s_.widest;
  }

  double learning_bytes(const LearnSpec& spec) const {
    const bool gradients =
        spec.weights || spec.weight_scales || spec.rotations || spec.channel_scales;
    const double networks = 2.0 * (fast_ ? 2.0 : 4.0) * (s_.linear + s_.head);
    const double moved = spec.weights && spec.lr_weights > 0.0 ? 8.0 * s_.linear : 0.0;
    const double tokens =
        std::min<double>(std::max(spec.length, 2048), double{1.0} * spec.sequences * spec.length);
    const double values = 4.0 * s_.layers * s_.hidden + 12.0 * s_.values / s_.layers;
    return 4.0 * weights() + networks + (gradients ? 8.0 : 0.0) * s_.linear + moved +
           values * tokens;
  }

  const Shapes s_;
  const Recipe& recipe_;
  const Workload& load_;
  const MachineSpeed& speed_;
  const bool fast_;
  const double mlp_;  // values of the MLP's inside, the widest place of the graph
  Estimate result_;
};

std::string duration(double seconds) {
  if (seconds < 90) return fmt::format("{:.0f} s", std::max(1.0, seconds));
  if (seconds < 120 * 60) return fmt::format("{:.0f} minutes", seconds / 60);
  if (seconds < 48 * 3600) return fmt::format("{:.0f} hours", seconds / 3600);
  return fmt::format("{:.0f} days", seconds / 86400);
}

}  // namespace

Estimate estimate_run(const Graph& graph, const Recipe& recipe, const Workload& workload,
                      const MachineSpeed& speed) {
  return Estimator(graph, recipe, workload, speed).run();
}

std::string to_text(const Estimate& estimate) {
  return fmt::format("about {} and {:.1f} GB of memory", duration(estimate.total),
                     static_cast<double>(estimate.peak_bytes) / 1e9);
}

}  // namespace qnpu
