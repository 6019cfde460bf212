#include "quant/quantize.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>

#include "base/status.h"
#include "io/files.h"
#include "io/folder_name.h"
#include "io/tokenizer.h"
#include "io/tokenizer_files.h"
#include "quant/calibrate.h"
#include "quant/check_recipe.h"
#include "quant/estimate.h"
#include "quant/fake_quant.h"
#include "quant/freeze.h"
#include "quant/layerwise.h"
#include "quant/learn/learn.h"
#include "quant/learn/sequences.h"
#include "quant/matmul.h"
#include "quant/memory.h"
#include "quant/ranges.h"
#include "quant/rounded_model.h"
#include "quant/run.h"
#include "quant/sample_text.h"
#include "quant/saved_rounding.h"
#include "quant/transform.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;

constexpr char kSampledText[] = "calibration.txt";

// What this will take, before it is begun; the speeds are those of a CPU.
void announce(Run& run, const Graph& graph) {
  if (!run.o.workers.first() || !run.o.device.is_cpu()) return;
  Workload load{.length = run.o.length,
                .processes = run.o.workers.size(),
                .spilled = float_bytes(graph.config) > kMostInMemory};
  if (run.o.calibration.empty() || run.recipe.sample) {
    load.sampled_tokens = sampled_tokens(run.recipe, run.o.samples, run.o.length);
  }
  load.windows = run.o.calibration.empty()
                     ? std::min(run.o.samples, static_cast<int>(load.sampled_tokens / run.o.length))
                     : static_cast<int>(run.texts.calibration.size());
  for (const HeldOut& text : run.texts.held_out) {
    for (const Window& window : text.windows) load.held_out_tokens += std::ssize(window);
  }
  const Estimate expected = estimate_run(graph, run.recipe, load, machine_speed());
  run.result.expected_seconds = expected.total;
  run.result.expected_peak_bytes = expected.peak_bytes;
  run.say(fmt::format("expected: {}\n", to_text(expected)));
}

// All windows stand behind the prefix that may be found.
void check_lengths(const Run& run, const ModelConfig& config) {
  const int prefix = run.recipe.prefix ? run.recipe.prefix->max_tokens : 0;
  const auto check = [&](int length, const char* what) {
    if (length + prefix <= config.max_positions) return;
    fail("{} of {} tokens ('length'){}: the model takes at most {}; give fewer", what, length,
         prefix == 0 ? "" : fmt::format(" behind a prefix of {}", prefix), config.max_positions);
  };
  check(run.o.length, "calibration windows");
  if (run.recipe.learn) check(run.recipe.learn->length, "learning from sequences");
  if (run.recipe.tune) check(run.recipe.tune->length, "learning from sequences");
}

// Called before the model is loaded too: text too short to learn from shows there already.
void use_texts(Run& run, const Tokenizer& tokenizer, const std::vector<NamedText>& texts) {
  run.texts =
      make_windows(tokenizer, texts, {run.o.samples, run.o.length, run.o.seed, run.learns()});
  if (run.recipe.learn) Sequences(run.texts.learning, run.recipe.learn->length, run.o.seed);
  if (run.recipe.tune) Sequences(run.texts.learning, run.recipe.tune->length, run.o.seed);
}

// On the disk that the artifact is for.
fs::path folder_of_out(const Run& run) {
  const fs::path folder = fs::absolute(run.o.out / "..").lexically_normal();
  std::error_code ignored;  // who writes there will tell
  fs::create_directories(folder, ignored);
  return folder;
}

FloatModel load(Run& run) {
  run.report("load", 0, 1);
  const Stopwatch watch(run.result.seconds["load"]);
  const fs::path folder = run.o.device.is_cpu() ? folder_of_out(run) : fs::path();
  return load_float_model(run.o.model, folder);
}

// The first worker's windows serve.
void watch_unrotated(Run& run, const Graph& graph) {
  if (!run.o.workers.first()) return;
  run.unrotated = UnrotatedInputs(graph, run.rotations);
}

std::vector<SiteStatistics> observe(Run& run, const FloatModel& model, const Graph& graph,
                                    const SiteHook& rounding) {
  const Stopwatch watch(run.result.seconds["calibrate"]);
  const std::vector<Window> windows = run.range_windows();
  run.report("calibrate", 0, static_cast<int>(windows.size()));
  const auto progress = run.progress_of("calibrate");
  return calibrate(model, graph, windows, progress, rounding, run.o.workers);
}

// Stage two (method.md 1.8): all sites but those whose scales were learned, by what the model
// computes with weights and those sites rounded.
std::vector<SiteStatistics> assign_other_ranges(Run& run, const FloatModel& model, Graph& graph) {
  const std::map<int, QParams> learned = learned_ranges(graph, *run.recipe.learn);
  const SiteHook round = site_quant_hook(graph);
  const auto stats = observe(run, with_rounded_weights(model, graph), graph,
                             [&](int site, const torch::Tensor& value) {
                               return learned.contains(site) ? round(site, value) : value;
                             });
  assign_ranges(graph, stats);
  for (const auto& [site, qparams] : learned) graph.sites[site].qparams = qparams;
  apply_ties(graph);
  return stats;
}

void round_linears(Run& run, FloatModel& model, Graph& graph) {
  const Stopwatch watch(run.result.seconds["round"]);
  run.report("round", 0, 1);
  const std::string fingerprint =
      run.learns() ? rounding_fingerprint(model, graph, run.texts.calibration, *run.recipe.gptq)
                   : "";
  const bool done = run.learns() && load_rounding(run.work.rounded(), fingerprint, model, graph,
                                                  run.findings.rounding);
  if (!run.o.workers.agree(done ? 1 : 0)) {
    fail("not all processes find {}: give them a folder that all of them see",
         run.work.rounded().string());
  }
  if (done) return;
  run.findings.rounding = round_layerwise(
      model, graph, run.texts.calibration, *run.recipe.gptq,
      [&](int step, int total) { run.report("round", step, total); }, run.o.workers);
  if (run.learns() && run.o.workers.first()) {
    save_rounding(run.work.rounded(), fingerprint, model, graph, run.findings.rounding);
  }
  return_free_memory();
}

void learn_section(Run& run, const std::string& section, const LearnSpec& spec, FloatModel& student,
                   const FloatModel& teacher, Graph& graph) {
  const Stopwatch watch(run.result.seconds[section]);
  LearnOptions options;
  options.spec = spec;
  options.section = section;
  options.texts = &run.texts.learning;
  options.held_out = run.texts.held_out;
  if (spec.rotations) options.rotations = run.rotations;
  options.seed = run.o.seed;
  if (!gains_from_bf16(student.config.hidden_size)) options.type = torch::kFloat32;
  options.workers = run.o.workers;
  options.state = run.work.path();
  options.progress = [&](int step, int total, double loss) {
    std::map<std::string, double> figures = learning_rates(spec, step - 1);
    figures["loss"] = loss;
    run.report_learned(section, step, total, figures);
  };
  run.report(section, 0, spec.steps);
  const LearnReport report = learn(student, teacher, graph, options);
  run.findings.learned[section] = to_json(report);
  run.result.learn_seconds[section] = report.seconds;
  return_free_memory();
}

// The model's own text, kept beside the artifact.
std::string write_text(Run& run, const FloatModel& model, const Graph& graph,
                       const Tokenizer& tokenizer, const fs::path& folder) {
  SampleOptions sample =
      sequences_for(sampled_tokens(run.recipe, run.o.samples, run.o.length), model.config);
  sample.seed = run.o.seed;
  sample.progress = [&](int done, int total) {
    if (done % 16 == 0) return_free_memory();  // the growing caches leave a hole at each step
    run.report("sample", done, total);
  };
  const Stopwatch watch(run.result.seconds["sample"]);
  const std::string text = sample_text(model, graph, tokenizer, sample);
  if (run.o.workers.first()) write_file(folder / kSampledText, text);
  return_free_memory();
  return text;
}

WeightReports freeze_into(Run& run, const fs::path& folder, const FloatModel& model, Graph& graph) {
  const Stopwatch watch(run.result.seconds["freeze"]);
  const bool rotated = run.recipe.r1 != Rotation::kNone || run.recipe.r2 != Rotation::kNone;
  FreezeOptions options;
  options.max_positions = run.o.max_positions;
  options.progress = run.progress_of("freeze");
  nlohmann::json manifest = {
      {"recipe", to_json(run.recipe)}, {"rotated", rotated}, {"seed", run.o.seed}};
  if (!run.recipe.deployable()) {
    manifest["deployable"] = false;
    manifest["online"] = {{"r3", rotation_name(run.recipe.r3)},
                          {"r4", rotation_name(run.recipe.r4)},
                          {"dynamic_activations", run.recipe.dynamic_activations}};
  }
  return freeze(model, graph, folder, manifest, options);
}

// In the final basis, by the first worker. Learned rotations make the basis as they are found.
void keep_float_run(Run& run, const FloatModel& model, const Graph& graph) {
  if (!run.o.workers.first()) return;
  const Stopwatch watch(run.result.seconds["compare"]);
  run.float_run = run_float(model, graph, few(run.texts.calibration, 1, kFidelityTokens).front());
}

nlohmann::json compare_with_float(Run& run, const fs::path& folder) {
  const Stopwatch watch(run.result.seconds["compare"]);
  run.report("compare", 0, 1);
  nlohmann::json fidelity = to_json(measure_fidelity(run.float_run, *load_artifact(folder)));
  run.report("compare", 1, 1);
  return fidelity;
}

void write_report(Run& run, const fs::path& folder, const Graph& graph,
                  const std::vector<SiteStatistics>& stats, const WeightReports& weights) {
  const char* source = run.o.calibration.empty() ? "sampled" : run.recipe.sample ? "both" : "file";
  nlohmann::json report = to_json(run.findings, run.recipe);
  report.update(
      {{"seed", run.o.seed},
       {"model", folder_name(run.o.model)},
       {"calibration",
        {{"source", source}, {"windows", run.texts.calibration.size()}, {"length", run.o.length}}},
       {"sites", site_report(graph, stats)},
       {"weights", weight_report(weights)},
       {"histograms", histogram_report(graph, stats, run.unrotated.statistics())},
       {"fidelity", compare_with_float(run, folder)}});
  write_json(folder / "report.json", report);
}

// What may be wrong with recipe and text shows before the long work begins. All workers come to
// the same model and ranges; those but the first have no `folder`, and stop there.
void make_artifact(Run& run, const fs::path& folder) {
  Graph graph = build_graph(load_config(run.o.model / "config.json"), run.recipe);
  check_recipe(run.recipe, graph, run.o.workers);
  if (!run.recipe.budget.empty()) smallest_bytes(run.recipe, graph, run.positions(graph.config));
  const Tokenizer tokenizer = Tokenizer::load(run.o.model);
  std::vector<NamedText> texts = read_texts(run.o.calibration);
  if (!texts.empty()) use_texts(run, tokenizer, texts);
  check_lengths(run, graph.config);
  announce(run, graph);
  FloatModel model = load(run);
  fold_norms(model);
  model = moved(std::move(model), run.o.device);
  return_free_memory();
  if (texts.empty() || run.recipe.sample) {
    texts.push_back({kSampledText, write_text(run, model, graph, tokenizer, folder)});
    use_texts(run, tokenizer, texts);
  }
  const FloatModel teacher = run.learns() ? model : FloatModel{};  // shares its tensors for now
  take_outliers_away(run, model, graph, tokenizer);
  FloatModel unrotated = run.learns_rotations() ? model : FloatModel{};
  turn(run, model, graph);
  watch_unrotated(run, graph);
  std::vector<SiteStatistics> stats = observe(run, model, graph, run.unrotated.hook());
  assign_ranges(graph, stats);
  if (!run.learns_rotations()) keep_float_run(run, model, graph);
  if (run.recipe.learn) {
    if (run.learns_rotations()) model = std::move(unrotated);
    learn_section(run, "learn", *run.recipe.learn, model, teacher, graph);
    if (run.learns_rotations()) keep_float_run(run, model, graph);
    stats = assign_other_ranges(run, model, graph);
  }
  if (run.recipe.gptq) round_linears(run, model, graph);
  if (run.recipe.tune) learn_section(run, "tune", *run.recipe.tune, model, teacher, graph);
  if (!run.o.workers.first()) return;
  write_report(run, folder, graph, stats, freeze_into(run, folder, model, graph));
  copy_tokenizer(run.o.model, folder);
}

}  // namespace

QuantizeResult quantize(const QuantizeOptions& options) {
  Run run(options);
  keep_freed_memory();
  QuantizeResult& result = run.result;
  {
    const Stopwatch watch(result.seconds["total"]);
    if (run.o.workers.first()) {
      StagedFolder folder(run.o.out);
      make_artifact(run, folder.path());
      folder.commit();
      if (run.learns()) run.work.remove();
      result.size_bytes = folder_bytes(run.o.out);
    } else {
      make_artifact(run, {});
    }
  }
  result.peak_bytes = peak_resident_bytes();
  result.calibration_windows = static_cast<int>(run.texts.calibration.size());
  result.calibration_tokens = result.calibration_windows * run.o.length;
  return std::move(run.result);
}

}  // namespace qnpu
