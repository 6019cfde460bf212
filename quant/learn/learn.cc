#include "quant/learn/learn.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <numbers>

#include "base/clock.h"
#include "base/status.h"
#include "quant/learn/parameters.h"
#include "quant/learn/pass.h"
#include "quant/learn/sequences.h"
#include "quant/learn/state.h"

namespace qnpu {
namespace {

using torch::Tensor;

constexpr int64_t kTokens = 2048;  // of one pass; more sequences become several passes
constexpr double kDiverged = 3.0;  // times the first loss ...
constexpr int kPatience = 5;       // ... in so many steps without a break

// Linear warm-up, then a cosine that reaches 0 after the last step.
double rate_factor(const LearnSpec& spec, int step) {
  if (step < spec.warmup) return (step + 1.0) / (spec.warmup + 1.0);
  const double done = static_cast<double>(step - spec.warmup) / (spec.steps - spec.warmup);
  return 0.5 * (1.0 + std::cos(std::numbers::pi * done));
}

// What the rate "lr_scales" is for.
NetworkOptions student_options(const LearnOptions& o) {
  NetworkOptions options;
  options.type = o.type;
  options.round_weights = o.spec.quantize_weights;
  options.round_outputs = o.spec.quantize_outputs;
  options.dynamic_inputs = o.spec.dynamic_inputs;
  options.round_head = !o.spec.rotations;
  return options;
}

NetworkOptions teacher_options(const LearnOptions& o) {
  NetworkOptions options;
  options.type = o.type;
  options.round_inputs = options.round_weights = false;
  return options;
}

// Of everything that the result depends on.
std::string fingerprint(const FloatModel& student, const Graph& graph, const LearnOptions& o) {
  Recipe recipe;
  recipe.learn = o.spec;
  return run_fingerprint(
      {{"spec", to_json(recipe)["learn"]}, {"seed", o.seed}, {"type", torch::toString(o.type)}},
      student, graph, *o.texts);
}

class Learner {
 public:
  Learner(FloatModel& student, const FloatModel& teacher, Graph& graph, const LearnOptions& options)
      : o_(options),
        spec_(options.spec),
        workers_(options.workers),
        fingerprint_(options.state.empty() && workers_.size() == 1
                         ? ""
                         : fingerprint(student, graph, options)),
        teacher_graph_(build_graph(teacher.config, Recipe{})),
        teacher_(teacher, teacher_graph_, teacher_options(options)),
        student_(student, graph, student_options(options)),
        parameters_(student, graph, student_, options.spec, options.rotations, options.workers),
        pass_(student_, teacher_, options.spec.loss),
        sequences_(*options.texts, options.spec.length, options.seed) {}

  LearnReport run() {
    for (const HeldOut& text : o_.held_out) {
      report_.held_out.push_back({text.name, held_out_loss(text), 0.0, teacher_loss(text)});
    }
    const Parameters::Snapshot start = parameters_.snapshot();
    for (int step = resume(start); step < spec_.steps; ++step) {
      take_step(step);
      for (const auto& [kind, distance] : parameters_.movement(start)) {
        report_.movement[kind].push_back(distance);
      }
      check_loss(step);
      if ((step + 1) % o_.checkpoint_every == 0) save(step + 1);
      if (o_.progress) o_.progress(step + 1, spec_.steps, report_.losses.back());
    }
    for (int step = 0; step < spec_.steps; ++step) {
      report_.rates.push_back(rate_factor(spec_, step));
    }
    report_.largest_drift = parameters_.largest_drift();
    judge(start);
    parameters_.finish();
    return std::move(report_);
  }

 private:
  std::filesystem::path state_file() const { return o_.state / (o_.section + ".safetensors"); }

  // The step to go on with.
  int resume(const Parameters::Snapshot& start) {
    LearnState state{0, {}, {}, parameters_.state()};
    for (const auto& [kind, distance] : parameters_.movement(start)) state.movement[kind] = {};
    if (!o_.state.empty() && load_state(state_file(), fingerprint_, state)) {
      parameters_.restored(state.step);
      sequences_.skip(int64_t{state.step} * spec_.sequences);
      report_.losses = state.losses;
      report_.movement = state.movement;
    }
    if (!workers_.agree(std::hash<std::string>()(fmt::format("{} {}", fingerprint_, state.step)))) {
      fail(
          "the processes start to learn from different states: give all the same files, options "
          "and numbers of threads, and a folder that all of them see");
    }
    return state.step;
  }

  void save(int step) const {
    if (o_.state.empty() || !workers_.first()) return;
    save_state(state_file(), fingerprint_,
               {step, report_.losses, report_.movement, parameters_.state()});
  }

  void take_step(int step) {
    const auto begin = Clock::now();
    const int64_t tokens = int64_t{spec_.sequences} * spec_.length;
    const Tensor mine = sequences_.next(spec_.sequences)
                            .slice(0, workers_.rank(), spec_.sequences, workers_.size())
                            .contiguous();
    double sum = 0.0;
    int64_t rows = 0;
    for (const Tensor& batch : mine.split(std::max<int64_t>(kTokens / spec_.length, 1))) {
      set_local_weight(step, static_cast<double>(batch.size(0)) / spec_.sequences);
      const LossResult result = pass_.backward(batch, 1.0 / static_cast<double>(tokens));
      sum += result.sum;
      rows += result.rows;
    }
    workers_.sum(sum);
    workers_.sum(rows);
    report_.losses.push_back(sum / rows);
    if (std::isfinite(sum)) {
      const double rate = rate_factor(spec_, step);
      parameters_.step({spec_.lr_rotations * rate, spec_.lr_scales * rate, spec_.lr_weights * rate},
                       tokens);
    }
    report_.seconds.push_back(seconds_since(begin));
  }

  void set_local_weight(int step, double share) {
    for (LinearGroup& group : student_.groups()) {
      group.local_weight = step < spec_.local_steps ? spec_.local_weight * share : 0.0;
    }
  }

  void check_loss(int step) {
    const double loss = report_.losses.back();
    diverging_ = loss > kDiverged * report_.losses.front() ? diverging_ + 1 : 0;
    if (std::isfinite(loss) && diverging_ < kPatience) return;
    std::string rates;
    const auto mention = [&](bool active, const char* key, double value) {
      if (active) rates += fmt::format("{}'{}' ({})", rates.empty() ? "" : " or ", key, value);
    };
    mention(spec_.rotations, "lr_rotations", spec_.lr_rotations);
    mention(learns_scales(spec_), "lr_scales", spec_.lr_scales);
    mention(spec_.weights, "lr_weights", spec_.lr_weights);
    fail(
        "learning diverged: the loss is {:.4g} after step {}, and was {:.4g} at first; lower {} in "
        "the recipe's section '{}'{}",
        loss, step + 1, report_.losses.front(), rates, o_.section,
        o_.state.empty() ? ""
                         : fmt::format(" (the last good state is kept in {})", o_.state.string()));
  }

  // Keeps the start if the result is worse on a held-out text.
  void judge(const Parameters::Snapshot& start) {
    for (size_t i = 0; i < o_.held_out.size(); ++i) {
      HeldOutLoss& loss = report_.held_out[i];
      loss.after = held_out_loss(o_.held_out[i]);
      if (!(loss.after <= loss.before)) report_.accepted = false;
    }
    if (!report_.accepted) parameters_.restore(start);
  }

  template <typename F>
  double mean(const HeldOut& text, F loss) {
    double sum = 0.0;
    int64_t rows = 0;
    for (size_t w = 0; w < text.windows.size(); ++w) {
      if (!workers_.mine(static_cast<int64_t>(w))) continue;
      const Window& window = text.windows[w];
      const std::vector<int64_t> ids(window.begin(), window.end());
      const LossResult result = loss(torch::tensor(ids, torch::kInt64).unsqueeze(0));
      sum += result.sum;
      rows += result.rows;
    }
    workers_.sum(sum);
    workers_.sum(rows);
    return rows == 0 ? 0.0 : sum / static_cast<double>(rows);
  }
  double held_out_loss(const HeldOut& text) {
    return mean(text, [&](const Tensor& tokens) { return pass_.forward(tokens); });
  }
  double teacher_loss(const HeldOut& text) {
    return mean(text, [&](const Tensor& tokens) { return pass_.teacher_cross_entropy(tokens); });
  }

  const LearnOptions& o_;
  const LearnSpec& spec_;
  const Workers workers_;
  const std::string fingerprint_;
  const Graph teacher_graph_;  // without the student's widened layers
  Network teacher_;
  Network student_;
  Parameters parameters_;
  Pass pass_;
  Sequences sequences_;
  LearnReport report_;
  int diverging_ = 0;  // steps
};

}  // namespace

bool learns_scales(const LearnSpec& spec) {
  return spec.input_scales || spec.output_scales || spec.weight_scales || spec.norms ||
         spec.channel_scales;
}

void check_learning(const LearnSpec& spec, const std::string& section, const Workers& workers) {
  if (spec.sequences < workers.size()) {
    fail(
        "recipe section '{}': {} processes cannot share a step's 'sequences' ({}): raise them, or "
        "start fewer processes",
        section, workers.size(), spec.sequences);
  }
  if (spec.rotations && spec.weights) {
    fail("recipe section '{}': 'rotations' and 'weights' cannot be learned together", section);
  }
  if (spec.rotations && spec.norms) {
    fail("recipe section '{}': 'rotations' and 'norms' cannot be learned together", section);
  }
  if (spec.channel_scales && (spec.rotations || spec.weights || spec.norms)) {
    fail(
        "recipe section '{}': 'channel_scales' change norms and weights that else stay; they "
        "cannot be learned together with 'rotations', 'weights' or 'norms'",
        section);
  }
  if (!spec.quantize_weights && (spec.weights || spec.weight_scales)) {
    fail("recipe section '{}': 'weights' and 'weight_scales' need 'quantize_weights'", section);
  }
  if (spec.output_scales && !spec.quantize_outputs) {
    fail("recipe section '{}': 'output_scales' need 'quantize_outputs'", section);
  }
  if (spec.dynamic_inputs && (spec.input_scales || spec.local_steps > 0)) {
    fail(
        "recipe section '{}': with 'dynamic_inputs' each token has a scale of its own; leave out "
        "'input_scales' and 'local_steps'",
        section);
  }
  if (spec.optimizer == Optimizer::kSgd && spec.weights) {
    fail("recipe section '{}': 'weights' need the optimizer 'adam'", section);
  }
  if (!learns_scales(spec) && !spec.rotations && !(spec.weights && spec.lr_weights > 0)) {
    fail(
        "recipe section '{}': nothing is to be learned; set 'rotations', 'input_scales', "
        "'weight_scales', 'norms', 'channel_scales', 'output_scales', or 'weights' with "
        "'lr_weights' above 0",
        section);
  }
}

std::map<std::string, double> learning_rates(const LearnSpec& spec, int step) {
  const double rate = rate_factor(spec, step);
  std::map<std::string, double> rates;
  if (spec.rotations) rates["lr_rotations"] = spec.lr_rotations * rate;
  if (learns_scales(spec)) rates["lr_scales"] = spec.lr_scales * rate;
  if (spec.weights && spec.lr_weights > 0) rates["lr_weights"] = spec.lr_weights * rate;
  return rates;
}

LearnReport learn(FloatModel& student, const FloatModel& teacher, Graph& graph,
                  const LearnOptions& options) {
  check_learning(options.spec, options.section, options.workers);
  return Learner(student, teacher, graph, options).run();
}

nlohmann::json to_json(const LearnReport& report) {
  nlohmann::json held_out = nlohmann::json::array();
  for (const HeldOutLoss& loss : report.held_out) {
    held_out.push_back({{"text", loss.name},
                        {"before", loss.before},
                        {"after", loss.after},
                        {"teacher_cross_entropy", loss.teacher}});
  }
  return {{"losses", report.losses},     {"rates", report.rates},
          {"movement", report.movement}, {"held_out", held_out},
          {"accepted", report.accepted}, {"largest_drift", report.largest_drift}};
}

}  // namespace qnpu
