#include "quant/quantize.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>

#include "base/status.h"
#include "io/files.h"
#include "io/tokenizer.h"
#include "quant/calibrate.h"
#include "quant/calibration_text.h"
#include "quant/channel_maxima.h"
#include "quant/check_recipe.h"
#include "quant/choose_widths.h"
#include "quant/estimate.h"
#include "quant/fake_quant.h"
#include "quant/freeze.h"
#include "quant/layerwise.h"
#include "quant/learn/learn.h"
#include "quant/learn/sequences.h"
#include "quant/matmul.h"
#include "quant/memory.h"
#include "quant/online.h"
#include "quant/prefix.h"
#include "quant/ranges.h"
#include "quant/report.h"
#include "quant/rounded_model.h"
#include "quant/sample_text.h"
#include "quant/saved_rounding.h"
#include "quant/sensitivity.h"
#include "quant/smooth.h"
#include "quant/split.h"
#include "quant/work_folder.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

// Without generation_config.json the end tokens are in config.json.
constexpr const char* kTokenizerFiles[] = {"tokenizer.json",         "tokenizer_config.json",
                                           "generation_config.json", "config.json",
                                           "chat_template.jinja",    "special_tokens_map.json"};
constexpr char kSampledText[] = "calibration.txt";

// Where neither a text nor the recipe says more; and of one sequence: all are written together.
constexpr int kSampledTokens = 8192;
constexpr int kSequenceTokens = 256;

// Ranges need less text than rounding does, and looking at every value costs more than computing
// it.
constexpr int kRangeTokens = 16384;

int64_t folder_bytes(const fs::path& folder) {
  int64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file()) bytes += static_cast<int64_t>(entry.file_size());
  }
  return bytes;
}

// Adds the seconds of its life to `total`.
class Stopwatch {
 public:
  explicit Stopwatch(double& total) : total_(total) {}
  ~Stopwatch() { total_ += std::chrono::duration<double>(Clock::now() - begin_).count(); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& total_;
  Clock::time_point begin_ = Clock::now();
};

class Quantizer {
 public:
  explicit Quantizer(const QuantizeOptions& options) : o_(options) {}

  QuantizeResult run() {
    keep_freed_memory();
    QuantizeResult& result = result_;
    {
      const Stopwatch watch(seconds_["total"]);
      if (o_.workers.first()) {
        StagedFolder folder(o_.out);
        make_artifact(folder.path());
        folder.commit();
        if (learns()) work_.remove();
        result.size_bytes = folder_bytes(o_.out);
      } else {
        make_artifact({});
      }
    }
    result.seconds = seconds_;
    result.learn_seconds = learn_seconds_;
    result.peak_bytes = peak_resident_bytes();
    result.calibration_windows = static_cast<int>(texts_.calibration.size());
    result.calibration_tokens = result.calibration_windows * o_.length;
    return std::move(result_);
  }

 private:
  // What may be wrong with recipe and text shows before the long work begins. All workers come to
  // the same model and ranges; those but the first have no `folder`, and stop there.
  void make_artifact(const fs::path& folder) {
    Graph graph = build_graph(load_config(o_.model / "config.json"), recipe_);
    check_recipe(recipe_, graph, o_.workers);
    if (!recipe_.budget.empty()) smallest_bytes(recipe_, graph, positions(graph.config));
    const Tokenizer tokenizer = Tokenizer::load(o_.model);
    std::vector<NamedText> texts = read_texts();
    if (!texts.empty()) use_texts(tokenizer, texts);
    announce(graph);
    FloatModel model = load();
    fold_norms(model);
    model = moved(std::move(model), o_.device);
    return_free_memory();
    if (texts.empty() || recipe_.sample) {
      texts.push_back({kSampledText, write_text(model, graph, tokenizer, folder)});
      use_texts(tokenizer, texts);
    }
    const FloatModel teacher = learns() ? model : FloatModel{};  // shares its tensors for now
    if (recipe_.prefix) find_prefix_of(model, graph, tokenizer);
    if (recipe_.smooth) smooth_channels(model, graph);
    if (recipe_.split) split(model, graph);
    FloatModel unrotated = learns_rotations() ? model : FloatModel{};
    turn(model, graph);
    std::vector<SiteStatistics> stats = observe(model, graph, {});
    assign_ranges(graph, stats);
    if (recipe_.learn) {
      if (learns_rotations()) model = std::move(unrotated);
      learn_section("learn", *recipe_.learn, model, teacher, graph);
      stats = assign_other_ranges(model, graph);
    }
    if (recipe_.gptq) round(model, graph);
    if (recipe_.tune) learn_section("tune", *recipe_.tune, model, teacher, graph);
    if (!o_.workers.first()) return;
    write_report(folder, graph, stats, freeze_into(folder, model, graph));
    copy_tokenizer(folder);
  }

  // What this will take, before it is begun; the speeds are those of a CPU.
  void announce(const Graph& graph) {
    if (!o_.workers.first() || !o_.device.is_cpu()) return;
    Workload load{.length = o_.length, .processes = o_.workers.size()};
    if (o_.calibration.empty() || recipe_.sample) load.sampled_tokens = sampled_tokens();
    load.windows = o_.calibration.empty()
                       ? std::min(o_.samples, static_cast<int>(load.sampled_tokens / o_.length))
                       : static_cast<int>(texts_.calibration.size());
    for (const HeldOut& text : texts_.held_out) {
      for (const Window& window : text.windows) load.held_out_tokens += std::ssize(window);
    }
    const Estimate expected = estimate_run(graph, recipe_, load, machine_speed());
    result_.expected_seconds = expected.total;
    result_.expected_peak_bytes = expected.peak_bytes;
    say(fmt::format("expected: {}\n", to_text(expected)));
  }

  void say(const std::string& text) const {
    if (o_.say && o_.workers.first()) o_.say(text);
  }

  // Of the model's own text, at least.
  int64_t sampled_tokens() const {
    const int64_t wanted = recipe_.sample
                               ? recipe_.sample->tokens
                               : std::min<int64_t>(int64_t{o_.samples} * o_.length, kSampledTokens);
    return std::max<int64_t>(o_.length, wanted);
  }

  std::vector<NamedText> read_texts() const {
    std::vector<NamedText> texts;
    for (const fs::path& path : o_.calibration) {
      texts.push_back({path.filename().string(), read_text(path)});
    }
    return texts;
  }

  // Called before the model is loaded too: text too short to learn from shows there already.
  void use_texts(const Tokenizer& tokenizer, const std::vector<NamedText>& texts) {
    texts_ = make_windows(tokenizer, texts, {o_.samples, o_.length, o_.seed, learns()});
    if (recipe_.learn) Sequences(texts_.learning, recipe_.learn->length, o_.seed);
    if (recipe_.tune) Sequences(texts_.learning, recipe_.tune->length, o_.seed);
  }

  bool learns() const { return recipe_.learn || recipe_.tune; }
  bool learns_rotations() const { return recipe_.learn && recipe_.learn->rotations; }

  void find_prefix_of(FloatModel& model, const Graph& graph, const Tokenizer& tokenizer) {
    const Stopwatch watch(seconds_["prefix"]);
    report("prefix", 0, 1);
    prefix_ =
        find_prefix(model, graph, few(texts_.calibration, 8, 128), sink_tokens(tokenizer),
                    *recipe_.prefix, [&](int done, int total) { report("prefix", done, total); });
    model.prefix = prefix_.prefix;
  }

  void report(const std::string& step, int done, int total) const {
    if (o_.progress) o_.progress(step, done, total);
  }

  FloatModel load() {
    report("load", 0, 1);
    const Stopwatch watch(seconds_["load"]);
    const fs::path folder = folder_of_out();
    FloatModel model = load_float_model(o_.model, o_.device.is_cpu() ? folder : fs::path());
    if (o_.length > model.config.max_positions) {
      fail("calibration windows of {} tokens: the model takes at most {}", o_.length,
           model.config.max_positions);
    }
    for (const auto& spec : {recipe_.learn, recipe_.tune}) {
      if (spec && spec->length > model.config.max_positions) {
        fail("learning from sequences of {} tokens ('length'): the model takes at most {}",
             spec->length, model.config.max_positions);
      }
    }
    return model;
  }

  // On the disk that the artifact is for.
  fs::path folder_of_out() const {
    const fs::path folder = fs::absolute(o_.out / "..").lexically_normal();
    std::error_code ignored;  // who writes there will tell
    fs::create_directories(folder, ignored);
    return folder;
  }

  void smooth_channels(FloatModel& model, const Graph& graph) {
    const Stopwatch watch(seconds_["smooth"]);
    const auto maxima =
        channel_maxima(model, graph, few(texts_.calibration, 8, 1024), smooth_sites(graph),
                       [&](int done, int total) { report("smooth", done, total); });
    smooth(model, graph, maxima, *recipe_.smooth);
    return_free_memory();
  }

  // The most sensitive inputs of down_proj get 16 bits.
  void widen(const FloatModel& model, Graph& graph) {
    const Stopwatch watch(seconds_["sensitivity"]);
    sensitivity_ =
        measure_sensitivity(model, graph, few(texts_.calibration, 4, 2048), *recipe_.sensitivity,
                            [&](int done, int total) { report("sensitivity", done, total); });
    widen_sensitive(recipe_, sensitivity_);
    graph = build_graph(model.config, recipe_);
  }

  // Widths within the recipe's budget, once the weights are what will be rounded.
  void choose(const FloatModel& model, Graph& graph) {
    const Stopwatch watch(seconds_["widths"]);
    graph.prefix_tokens = model.prefix.tokens;
    widths_ = choose_widths(
        model, recipe_, graph, few(texts_.calibration, 4, 128), positions(model.config),
        [&](int done, int total) { report("widths", done, total); }, o_.workers);
    return_free_memory();
    result_.widths = width_table(widths_, recipe_.budget);
    say(result_.widths);
  }

  int positions(const ModelConfig& config) const {
    return std::min(config.max_positions, o_.max_positions);
  }

  // Outlier channels of down_proj's inputs; the graph is that of the wider model.
  void split(FloatModel& model, Graph& graph) {
    const Stopwatch watch(seconds_["split"]);
    std::vector<int> sites;
    for (int layer = 0; layer < model.config.num_layers; ++layer) {
      sites.push_back(graph.find_site(fmt::format("layers.{}.mlp.down_proj.in", layer)));
    }
    const auto maxima = channel_maxima(model, graph, few(texts_.calibration, 8, 1024), sites,
                                       [&](int done, int total) { report("split", done, total); });
    for (int layer = 0; layer < model.config.num_layers; ++layer) {
      split_mlp(model, layer, plan_split(maxima.at(sites[layer]), *recipe_.split));
    }
    graph = build_graph(model.config, recipe_);
    return_free_memory();
  }

  void turn(FloatModel& model, Graph& graph) {
    {
      report("rotate", 0, 1);
      const Stopwatch watch(seconds_["rotate"]);
      rotate(model, recipe_.r1, recipe_.r2, o_.seed);
      return_free_memory();
    }
    rotate_online(model, graph, recipe_);
    if (recipe_.sensitivity) widen(model, graph);
    if (!recipe_.budget.empty()) choose(model, graph);
  }

  std::vector<SiteStatistics> observe(const FloatModel& model, const Graph& graph,
                                      const SiteHook& rounding) {
    const Stopwatch watch(seconds_["calibrate"]);
    const auto most = static_cast<size_t>(std::max(1, kRangeTokens / o_.length));
    const std::vector<Window> windows = few(texts_.calibration, most, o_.length);
    report("calibrate", 0, static_cast<int>(windows.size()));
    const auto progress = [&](int done, int total) { report("calibrate", done, total); };
    return calibrate(model, graph, windows, progress, rounding, o_.workers);
  }

  // Stage two (method.md 1.8): all sites but those whose scales were learned, by what the model
  // computes with weights and those sites rounded.
  std::vector<SiteStatistics> assign_other_ranges(const FloatModel& model, Graph& graph) {
    const std::map<int, QParams> learned = learned_ranges(graph, *recipe_.learn);
    const SiteHook round = site_quant_hook(graph);
    const auto stats = observe(with_rounded_weights(model, graph), graph,
                               [&](int site, const torch::Tensor& value) {
                                 return learned.contains(site) ? round(site, value) : value;
                               });
    assign_ranges(graph, stats);
    for (const auto& [site, qparams] : learned) graph.sites[site].qparams = qparams;
    apply_ties(graph);
    return stats;
  }

  void round(FloatModel& model, Graph& graph) {
    const Stopwatch watch(seconds_["round"]);
    report("round", 0, 1);
    const std::string fingerprint =
        learns() ? rounding_fingerprint(model, graph, texts_.calibration, *recipe_.gptq) : "";
    const bool done =
        learns() && load_rounding(work_.rounded(), fingerprint, model, graph, rounding_);
    if (!o_.workers.agree(done ? 1 : 0)) {
      fail("not all processes find {}: give them a folder that all of them see",
           work_.rounded().string());
    }
    if (done) return;
    rounding_ = round_layerwise(
        model, graph, texts_.calibration, *recipe_.gptq,
        [&](int step, int total) { report("round", step, total); }, o_.workers);
    if (learns() && o_.workers.first()) {
      save_rounding(work_.rounded(), fingerprint, model, graph, rounding_);
    }
    return_free_memory();
  }

  void learn_section(const std::string& section, const LearnSpec& spec, FloatModel& student,
                     const FloatModel& teacher, Graph& graph) {
    const Stopwatch watch(seconds_[section]);
    LearnOptions options;
    options.spec = spec;
    options.section = section;
    options.windows = &texts_.learning;
    options.held_out = texts_.held_out;
    if (spec.rotations) {
      options.rotations = make_rotations(student.config, recipe_.r1, recipe_.r2, o_.seed);
    }
    options.seed = o_.seed;
    if (!gains_from_bf16(student.config.hidden_size)) options.type = torch::kFloat32;
    options.workers = o_.workers;
    options.state = work_.path();
    options.progress = [&](int step, int total, double loss) {
      if (o_.workers.first()) work_.log(section, step, loss);
      report(section, step, total);
    };
    report(section, 0, spec.steps);
    const LearnReport report = learn(student, teacher, graph, options);
    learned_[section] = to_json(report);
    learn_seconds_[section] = report.seconds;
    return_free_memory();
  }

  // The model's own text, kept beside the artifact.
  std::string write_text(const FloatModel& model, const Graph& graph, const Tokenizer& tokenizer,
                         const fs::path& folder) {
    SampleOptions sample;
    // Encoding the text again may take a few tokens less than were sampled: 1/16 more.
    const int64_t wanted = sampled_tokens() + sampled_tokens() / 16 + 1;
    sample.tokens = std::min(kSequenceTokens, model.config.max_positions - 1);
    sample.sequences = static_cast<int>((wanted + sample.tokens - 1) / sample.tokens);
    sample.seed = o_.seed;
    sample.progress = [&](int done, int total) {
      if (done % 16 == 0) return_free_memory();  // the growing caches leave a hole at each step
      report("sample", done, total);
    };
    const Stopwatch watch(seconds_["sample"]);
    const std::string text = sample_text(model, graph, tokenizer, sample);
    if (o_.workers.first()) write_file(folder / kSampledText, text);
    return_free_memory();
    return text;
  }

  WeightReports freeze_into(const fs::path& folder, const FloatModel& model, Graph& graph) {
    const Stopwatch watch(seconds_["freeze"]);
    const bool rotated = recipe_.r1 != Rotation::kNone || recipe_.r2 != Rotation::kNone;
    FreezeOptions options;
    options.max_positions = o_.max_positions;
    options.progress = [&](int done, int total) { report("freeze", done, total); };
    nlohmann::json manifest = {
        {"recipe", to_json(recipe_)}, {"rotated", rotated}, {"seed", o_.seed}};
    if (!recipe_.deployable()) {
      manifest["deployable"] = false;
      manifest["online"] = {{"r3", rotation_name(recipe_.r3)},
                            {"r4", rotation_name(recipe_.r4)},
                            {"dynamic_activations", recipe_.dynamic_activations}};
    }
    return freeze(model, graph, folder, manifest, options);
  }

  void write_report(const fs::path& folder, const Graph& graph,
                    const std::vector<SiteStatistics>& stats, const WeightReports& weights) const {
    const char* source = o_.calibration.empty() ? "sampled" : recipe_.sample ? "both" : "file";
    nlohmann::json report = {
        {"recipe", recipe_.name},
        {"seed", o_.seed},
        {"calibration",
         {{"source", source}, {"windows", texts_.calibration.size()}, {"length", o_.length}}},
        {"sites", site_report(graph, stats)},
        {"weights", weight_report(weights)}};
    if (recipe_.prefix) {
      report["prefix"] = {{"tokens", prefix_.prefix.tokens}, {"outlier_bits", prefix_.bits}};
    }
    for (const auto& [name, rounding] : rounding_) {
      report["rounding"].push_back(
          {{"name", name}, {"gptq_error", rounding.gptq_error}, {"error", rounding.error}});
    }
    if (recipe_.sensitivity) {
      report["sensitivity"] = {{"ratios", sensitivity_.ratio}, {"layers", sensitivity_.chosen}};
    }
    if (!recipe_.budget.empty()) report["widths"] = to_json(widths_);
    for (const auto& [section, learned] : learned_) report[section] = learned;
    write_json(folder / "report.json", report);
  }

  void copy_tokenizer(const fs::path& folder) const {
    for (const char* name : kTokenizerFiles) {
      if (fs::exists(o_.model / name)) write_file(folder / name, read_file(o_.model / name));
    }
  }

  const QuantizeOptions& o_;
  Recipe recipe_ = o_.recipe;  // with the rules that sensitivity and budget add
  std::map<std::string, double> seconds_;
  WorkFolder work_{o_.out};
  TextWindows texts_;
  PrefixSearch prefix_;
  RoundingReports rounding_;
  Sensitivity sensitivity_;
  WidthChoice widths_;
  std::map<std::string, nlohmann::json> learned_;  // reports by section
  std::map<std::string, std::vector<double>> learn_seconds_;
  QuantizeResult result_;
};

}  // namespace

QuantizeResult quantize(const QuantizeOptions& options) { return Quantizer(options).run(); }

}  // namespace qnpu
