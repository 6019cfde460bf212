#include "quant/quantize.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "base/status.h"
#include "io/files.h"
#include "io/tokenizer.h"
#include "model/tokens.h"
#include "quant/calibrate.h"
#include "quant/channel_maxima.h"
#include "quant/freeze.h"
#include "quant/layerwise.h"
#include "quant/online.h"
#include "quant/prefix.h"
#include "quant/ranges.h"
#include "quant/report.h"
#include "quant/sample_text.h"
#include "quant/sensitivity.h"
#include "quant/smooth.h"
#include "quant/split.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

// Without generation_config.json the end tokens are in config.json.
constexpr const char* kTokenizerFiles[] = {"tokenizer.json",         "tokenizer_config.json",
                                           "generation_config.json", "config.json",
                                           "chat_template.jinja",    "special_tokens_map.json"};
constexpr char kSampledText[] = "calibration.txt";

// The model is sampled in this many sequences, of at most this many tokens together.
constexpr int kSequences = 32;
constexpr int kSampledTokens = 8192;

int64_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmHWM:", 0) == 0) return std::stoll(line.substr(6)) * 1024;
  }
  return 0;  // not on this system
}

// Values of a layer are made and freed over and over. By default glibc takes each large one fresh
// from the system and gives it back, and the page faults cost as much as the arithmetic.
void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 64 << 20);
#endif
}

// Folding and sampling leave holes of hundreds of megabytes in the heap, which glibc keeps
// resident.
void return_free_memory() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

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
    QuantizeResult result;
    {
      const Stopwatch watch(seconds_["total"]);
      StagedFolder folder(o_.out);
      make_artifact(folder.path());
      folder.commit();
    }
    result.seconds = seconds_;
    result.peak_bytes = peak_resident_bytes();
    result.size_bytes = folder_bytes(o_.out);
    result.calibration_windows = windows_;
    result.calibration_tokens = windows_ * o_.length;
    return result;
  }

 private:
  // What may be wrong with recipe and text shows before the long work begins.
  void make_artifact(const fs::path& folder) {
    Graph graph = build_graph(load_config(o_.model / "config.json"), recipe_);
    check_steps(graph);
    const Tokenizer tokenizer = Tokenizer::load(o_.model);
    std::vector<Window> windows = calibration_windows(tokenizer);
    FloatModel model = load();
    fold_norms(model);
    if (windows.empty()) {
      windows = cut(tokenizer, sampled_text(model, graph, tokenizer, folder), o_.samples);
    }
    if (recipe_.prefix) find_prefix_of(model, graph, tokenizer, windows);
    if (recipe_.smooth) smooth_channels(model, graph, windows);
    if (recipe_.split) split(model, graph, windows);
    turn(model);
    rotate_online(model, graph, recipe_);
    if (recipe_.sensitivity) widen(model, graph, windows);
    const std::vector<SiteStatistics> stats = observe(model, graph, windows);
    assign_ranges(graph, stats);
    if (recipe_.gptq) round(model, graph, windows);
    write_report(folder, graph, stats, freeze_into(folder, model, graph));
    copy_tokenizer(folder);
  }

  // Steps that are not there yet, or exclude each other.
  void check_steps(const Graph& graph) const {
    if (recipe_.learn || recipe_.tune) {
      fail("recipe '{}': this version cannot learn yet; leave the sections learn and tune out",
           recipe_.name);
    }
    if (recipe_.smooth && recipe_.r1 != Rotation::kNone) {
      fail(
          "recipe '{}': smooth divides by the norms' weights, but with R1 there is a rotation "
          "between a norm and its linears; leave out one of the two",
          recipe_.name);
    }
    const bool blocks = std::any_of(graph.sites.begin(), graph.sites.end(),
                                    [](const Site& site) { return site.spec.block_size != 0; });
    if (recipe_.gptq && blocks) {
      fail(
          "recipe '{}': gptq rounds weights with one scale per channel, and a rule asks for a "
          "block_size; leave out one of the two",
          recipe_.name);
    }
    online_rotations(graph, recipe_);  // is there a matrix of each size?
  }

  // Tokens that a text begins with, and that stand between the documents of a collection.
  static std::vector<int> first_tokens(const Tokenizer& tokenizer) {
    std::vector<int> first = tokenizer.encode("", /*add_special_tokens=*/true);
    const int end_of_text = tokenizer.token_to_id("<|endoftext|>");
    if (end_of_text >= 0) first.push_back(end_of_text);
    return first;
  }

  // Separators inside are left out: they are attention sinks, with activations a hundred times
  // those of text, and no text that a model is asked to read has them in its middle.
  std::vector<Window> cut(const Tokenizer& tokenizer, const std::string& text, int samples) {
    std::vector<int> tokens = token_sequence(tokenizer, text);
    const std::vector<int> first = first_tokens(tokenizer);
    const auto is_separator = [&](int token) {
      return std::find(first.begin(), first.end(), token) != first.end();
    };
    if (!tokens.empty()) {
      tokens.erase(std::remove_if(tokens.begin() + 1, tokens.end(), is_separator), tokens.end());
    }
    return cut_windows(tokens, samples, o_.length, o_.seed);
  }

  // The texts' windows in turns, so that the first ones of all are a mixture too.
  std::vector<Window> calibration_windows(const Tokenizer& tokenizer) {
    const auto texts = static_cast<int>(o_.calibration.size());
    std::vector<std::vector<Window>> of_text;
    for (int i = 0; i < texts; ++i) {
      const int samples = std::max(1, (o_.samples * (i + 1)) / texts - (o_.samples * i) / texts);
      of_text.push_back(cut(tokenizer, read_text(o_.calibration[i]), samples));
    }
    std::vector<Window> windows;
    for (size_t turn = 0; windows.size() < o_.samples; ++turn) {
      const size_t before = windows.size();
      for (const auto& text : of_text) {
        if (turn < text.size()) windows.push_back(text[turn]);
      }
      if (windows.size() == before) break;
    }
    return windows;
  }

  // The beginnings of the first windows.
  static std::vector<Window> few(const std::vector<Window>& windows, size_t count, size_t length) {
    std::vector<Window> beginnings;
    for (size_t i = 0; i < std::min(count, windows.size()); ++i) {
      const auto end = static_cast<int64_t>(std::min(length, windows[i].size()));
      beginnings.emplace_back(windows[i].begin(), windows[i].begin() + end);
    }
    return beginnings;
  }

  void find_prefix_of(FloatModel& model, const Graph& graph, const Tokenizer& tokenizer,
                      const std::vector<Window>& windows) {
    const Stopwatch watch(seconds_["prefix"]);
    report("prefix", 0, 1);
    prefix_ =
        find_prefix(model, graph, few(windows, 8, 128), first_tokens(tokenizer), *recipe_.prefix,
                    [&](int done, int total) { report("prefix", done, total); });
    model.prefix = prefix_.prefix;
  }

  void report(const std::string& step, int done, int total) const {
    if (o_.progress) o_.progress(step, done, total);
  }

  FloatModel load() {
    report("load", 0, 1);
    const Stopwatch watch(seconds_["load"]);
    FloatModel model = load_float_model(o_.model);
    if (o_.length > model.config.max_positions) {
      fail("calibration windows of {} tokens: the model takes at most {}", o_.length,
           model.config.max_positions);
    }
    return model;
  }

  void smooth_channels(FloatModel& model, const Graph& graph, const std::vector<Window>& windows) {
    const Stopwatch watch(seconds_["smooth"]);
    const auto maxima = channel_maxima(model, graph, few(windows, 8, 1024), smooth_sites(graph),
                                       [&](int done, int total) { report("smooth", done, total); });
    smooth(model, graph, maxima, *recipe_.smooth);
    return_free_memory();
  }

  // The most sensitive inputs of down_proj get 16 bits.
  void widen(const FloatModel& model, Graph& graph, const std::vector<Window>& windows) {
    const Stopwatch watch(seconds_["sensitivity"]);
    sensitivity_ =
        measure_sensitivity(model, graph, few(windows, 4, 2048), *recipe_.sensitivity,
                            [&](int done, int total) { report("sensitivity", done, total); });
    widen_sensitive(recipe_, sensitivity_);
    graph = build_graph(model.config, recipe_);
  }

  // Outlier channels of down_proj's inputs; the graph is that of the wider model.
  void split(FloatModel& model, Graph& graph, const std::vector<Window>& windows) {
    const Stopwatch watch(seconds_["split"]);
    std::vector<int> sites;
    for (int layer = 0; layer < model.config.num_layers; ++layer) {
      sites.push_back(graph.find_site(fmt::format("layers.{}.mlp.down_proj.in", layer)));
    }
    const auto maxima = channel_maxima(model, graph, few(windows, 8, 1024), sites,
                                       [&](int done, int total) { report("split", done, total); });
    for (int layer = 0; layer < model.config.num_layers; ++layer) {
      split_mlp(model, layer, plan_split(maxima.at(sites[layer]), *recipe_.split));
    }
    graph = build_graph(model.config, recipe_);
    return_free_memory();
  }

  void round(FloatModel& model, Graph& graph, const std::vector<Window>& windows) {
    const Stopwatch watch(seconds_["round"]);
    report("round", 0, 1);
    rounding_ = round_layerwise(model, graph, windows, *recipe_.gptq,
                                [&](int done, int total) { report("round", done, total); });
  }

  void turn(FloatModel& model) {
    report("rotate", 0, 1);
    const Stopwatch watch(seconds_["rotate"]);
    rotate(model, recipe_.r1, recipe_.r2, o_.seed);
    return_free_memory();
  }

  std::vector<SiteStatistics> observe(const FloatModel& model, const Graph& graph,
                                      const std::vector<Window>& windows) {
    const Stopwatch watch(seconds_["calibrate"]);
    windows_ = static_cast<int>(windows.size());
    report("calibrate", 0, windows_);
    return calibrate(model, graph, windows,
                     [&](int done, int total) { report("calibrate", done, total); });
  }

  // The model's own text, kept beside the artifact.
  std::string sampled_text(const FloatModel& model, const Graph& graph, const Tokenizer& tokenizer,
                           const fs::path& folder) {
    SampleOptions sample;
    sample.sequences = kSequences;
    const int64_t wanted = std::max<int64_t>(
        o_.length, std::min<int64_t>(int64_t{o_.samples} * o_.length, kSampledTokens));
    // Encoding the text again may take a few tokens less than were sampled: 1/16 more.
    const int64_t tokens = (wanted + wanted / 16) / kSequences + 1;
    sample.tokens = static_cast<int>(std::min<int64_t>(tokens, model.config.max_positions - 1));
    sample.seed = o_.seed;
    sample.progress = [&](int done, int total) {
      if (done % 16 == 0) return_free_memory();  // the growing caches leave a hole at each step
      report("sample", done, total);
    };
    const Stopwatch watch(seconds_["sample"]);
    const std::string text = sample_text(model, graph, tokenizer, sample);
    write_file(folder / kSampledText, text);
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
    const char* source = o_.calibration.empty() ? "sampled" : "file";
    nlohmann::json report = {
        {"recipe", recipe_.name},
        {"seed", o_.seed},
        {"calibration", {{"source", source}, {"windows", windows_}, {"length", o_.length}}},
        {"sites", site_report(graph, stats)},
        {"weights", weight_report(weights)}};
    if (recipe_.sensitivity) {
      report["sensitivity"] = {{"ratios", sensitivity_.ratio}, {"layers", sensitivity_.chosen}};
    }
    write_json(folder / "report.json", report);
  }

  void copy_tokenizer(const fs::path& folder) const {
    for (const char* name : kTokenizerFiles) {
      if (fs::exists(o_.model / name)) write_file(folder / name, read_file(o_.model / name));
    }
  }

  const QuantizeOptions& o_;
  Recipe recipe_ = o_.recipe;  // with the rules that sensitivity adds
  std::map<std::string, double> seconds_;
  int windows_ = 0;
  PrefixSearch prefix_;
  RoundingReports rounding_;
  Sensitivity sensitivity_;
};

}  // namespace

QuantizeResult quantize(const QuantizeOptions& options) { return Quantizer(options).run(); }

}  // namespace qnpu
