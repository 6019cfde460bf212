#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/qnpu/bundle_check.h"
#include "apps/qnpu/commands.h"
#include "apps/qnpu/options.h"
#include "apps/qnpu/program.h"
#include "apps/qnpu/verification.h"
#include "base/status.h"
#include "io/files.h"
#include "model/tokens.h"
#include "runtime/generate.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct Options : ArtifactOptions {
  fs::path text;
  fs::path work;
  Judge judge;
  DecoderOptions graph;
  int tokens = 512;
  int decode = 16;
  std::optional<int> greedy;
  bool sites = true;
  RunOptions run;
};

std::vector<int32_t> first_tokens(const Options& o) {
  const Tokenizer tokenizer = Tokenizer::load(o.artifact);
  const std::vector<int> all = token_sequence(tokenizer, read_text(o.text));
  if (std::ssize(all) < o.tokens) {
    fail("{} has {} tokens, fewer than the {} of --tokens; give a longer text or a smaller number",
         o.text.string(), all.size(), o.tokens);
  }
  return {all.begin(), all.begin() + o.tokens};
}

json to_json(const SiteDifference& d) {
  return {{"equal", d.equal_share()}, {"largest_difference", d.largest}, {"values", d.values}};
}

json to_json(const Options& o, const LogitsComparison& logits,
             const std::vector<SiteComparison>& sites) {
  json result = {{"on", o.judge.on},
                 {"tokens", logits.tokens},
                 {"perplexity", logits.perplexity},
                 {"perplexity_npu", logits.their_perplexity},
                 {"kl_divergence", logits.kl_divergence},
                 {"token_agreement", logits.token_agreement},
                 {"greedy", logits.greedy},
                 {"greedy_equal", logits.greedy_equal},
                 {"logits", to_json(logits.logits)},
                 {"seconds", logits.seconds},
                 {"seconds_npu", logits.their_seconds},
                 {"compiled", logits.compiled},
                 {"float_tensors", logits.compiled.is_null() ? json() : json(0)},
                 {"first_difference", nullptr},
                 {"sites", json::object()}};
  for (const SiteComparison& site : sites) {
    result["sites"][site.site] = to_json(site.same_inputs);
    result["sites"][site.site]["free"] = to_json(site.free);
    if (result["first_difference"].is_null() && site.free.largest > 0) {
      result["first_difference"] = site.site;
    }
  }
  return result;
}

void print_logits(const Options& o, const LogitsComparison& r) {
  if (!r.compiled.is_null()) {
    for (const auto& [name, graph] : r.compiled.at("graphs").items()) {
      fmt::print("{:<14} {} operations on {}, 0 float tensors, compiled in {} s with {}\n", name,
                 graph.at("operations").get<int>(), o.judge.soc, graph.at("seconds").get<double>(),
                 format_bytes(graph.at("peak_bytes").get<int64_t>()));
    }
  }
  fmt::print("tokens             {}, the last {} one by one\n", r.tokens + 1, o.decode);
  fmt::print("perplexity         {:.4f} here, {:.4f} on {} ({:+.3f} %)\n", r.perplexity,
             r.their_perplexity, o.judge.on, 100 * (r.their_perplexity / r.perplexity - 1));
  fmt::print("KL divergence      {:.6f}\n", r.kl_divergence);
  fmt::print("same next token    {:.2f} %\n", 100 * r.token_agreement);
  if (r.greedy > 0) {
    fmt::print("same greedy token  {} of {}\n", r.greedy_equal, r.greedy);
  }
  fmt::print("logits             {:.2f} % equal, largest difference {} steps\n",
             100 * r.logits.equal_share(), r.logits.largest);
  fmt::print("time               {:.2f} s here, {:.1f} s there: {:.0f} times as fast\n", r.seconds,
             r.their_seconds, r.their_seconds / r.seconds);
}

// One line for each kind of operation.
void print_sites(const std::vector<SiteComparison>& sites) {
  std::map<std::string, SiteComparison> kinds;
  for (const SiteComparison& site : sites) {
    SiteComparison& kind = kinds[fmt::format("{} ({})", op_name(site.op), site.asked.text)];
    kind.same_inputs.add(site.same_inputs);
    kind.free.add(site.free);
  }
  fmt::print("\n{:<40} {:>12} {:>10} {:>8} {:>12} {:>8}\n", "operation (what is asked)", "values",
             "equal %", "largest", "free equal %", "largest");
  for (const auto& [name, kind] : kinds) {
    fmt::print("{:<40} {:>12} {:>10.4f} {:>8} {:>12.2f} {:>8}\n", name, kind.same_inputs.values,
               100 * kind.same_inputs.equal_share(), kind.same_inputs.largest,
               100 * kind.free.equal_share(), kind.free.largest);
  }
  const auto first = std::find_if(sites.begin(), sites.end(),
                                  [](const SiteComparison& s) { return s.free.largest > 0; });
  if (first != sites.end()) fmt::print("\nfirst difference at {}\n", first->site);
}

// The emulator is held to the law; ONNX Runtime computes in float and is only reported.
void check_law(const Options& o, const std::vector<SiteComparison>& sites) {
  const std::string sentence = o.judge.on == "htp-emulator" ? disagreement(sites) : "";
  if (!sentence.empty()) fail("{}", sentence);
}

// Writes behind `tokens` what we find likeliest; returns how many.
int append_greedy(const Options& o, const std::shared_ptr<const Artifact>& artifact,
                  std::vector<int32_t>& tokens) {
  const int count = o.greedy.value_or(0);
  if (count == 0) return 0;
  Session session(artifact, {.context = o.graph.context, .max_rows = o.graph.rows});
  const auto written =
      generate(session, tokens, {.sampling = {.temperature = 0}, .max_tokens = count}).tokens;
  tokens.insert(tokens.end(), written.begin(), written.end());
  return static_cast<int>(written.size());
}

// A runtime's own loop around its bundle: greedy tokens behind a prompt.
void run_bundle(const Options& o, const std::shared_ptr<const Artifact>& artifact,
                const std::vector<int32_t>& prompt) {
  const int count = o.greedy.value_or(20);
  const auto needed = std::ssize(prompt) + count + artifact->graph.prefix_length();
  if (needed > o.graph.context) {
    fail("{} tokens and {} behind them need {} positions, but --context is {}", prompt.size(),
         count, needed, o.graph.context);
  }
  Progress progress(o.run.quiet);
  const GreedyComparison r = compare_greedy(artifact, o.judge.on, {o.graph, {o.judge.soc}}, prompt,
                                            count, o.work, progress);
  const json result = {{"on", o.judge.on},
                       {"tokens", r.ours},
                       {"tokens_npu", r.theirs},
                       {"equal", r.equal},
                       {"lead", r.lead}};
  log_result(result);
  if (o.json) return print_json(result);
  fmt::print("tokens here        {}\n", fmt::join(r.ours, " "));
  fmt::print("{:<18} {}\n", "on " + o.judge.on, fmt::join(r.theirs, " "));
  fmt::print("equal              {} of {}\n", r.equal, r.ours.size());
  if (r.equal < std::ssize(r.ours)) {
    fmt::print("there, our token leads theirs by {} steps of the logits\n", r.lead);
  }
}

// Before anything is compiled. The last piece of the text has a whole graph's rows.
void check_lengths(const Options& o, const Graph& graph) {
  if (o.decode >= o.tokens) {
    fail("--decode {} of --tokens {}: at least one token must be left to prefill", o.decode,
         o.tokens);
  }
  const int behind = o.decode + o.greedy.value_or(0);
  const int rows = o.graph.rows;
  const int prefill = (o.tokens - o.decode + rows - 1) / rows * rows;
  const int needed = std::max(prefill, o.tokens - o.decode + behind) + graph.prefix_length();
  if (needed <= o.graph.context) return;
  fail(
      "{} tokens in pieces of {} need {} positions, but --context is {}: ask for more positions "
      "or fewer tokens",
      o.tokens, rows, needed, o.graph.context);
}

void run(Options o) {
  if (o.work.empty()) o.work = without_trailing_slash(o.artifact).string() + ".verify";
  const auto artifact = load_artifact(o.artifact);
  check_deployable(*artifact);
  choose_parts(*artifact, o.graph.part);
  std::vector<int32_t> tokens = first_tokens(o);
  begin_run(o.run);
  const FolderLock alone(o.work);
  if (o.judge.on == "genie" || o.judge.on == "ort-genai") return run_bundle(o, artifact, tokens);
  check_lengths(o, artifact->graph);
  Progress progress(o.run.quiet);
  Verification verification(artifact, o.graph, o.judge, o.work, progress);
  const int greedy = append_greedy(o, artifact, tokens);
  const LogitsComparison logits =
      verification.compare_logits(tokens, static_cast<int>(tokens.size()) - o.decode, greedy);
  std::vector<SiteComparison> sites;
  if (o.sites) sites = verification.compare_sites(tokens);
  const json result = to_json(o, logits, sites);
  log_result(result);
  if (o.json) {
    print_json(result);
  } else {
    print_logits(o, logits);
    if (o.sites) print_sites(sites);
  }
  check_law(o, sites);
}

}  // namespace

void add_verify_command(CLI::App& app) {
  const auto o = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("verify", "Hold the integer runtime against the NPU's emulator");
  command->group(kNpu)->footer(
      "qnpu verify my-model --text my-text.txt\n"
      "qnpu verify my-model --text my-text.txt --on genie");
  add_artifact_options(*command, *o);
  command->add_option("--text", o->text, "UTF-8 text, whose first tokens are read")
      ->required()
      ->type_name(kFile);
  command->add_option("--on", o->judge.on, "Who else runs it")
      ->check(CLI::IsMember({"htp-emulator", "onnxruntime", "genie", "ort-genai"}))
      ->capture_default_str();
  command->add_option("--soc", o->judge.soc, "Of the emulator")
      ->type_name(kTargets)
      ->capture_default_str();
  command->add_option("--tokens", o->tokens, "Of the text")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  command->add_option("--decode", o->decode, "How many of them one by one, at the end")
      ->check(natural_number<int>())
      ->capture_default_str();
  command
      ->add_option(
          "--greedy", o->greedy,
          "Tokens written greedily behind them: by both, on genie and ort-genai (20); else "
          "by us, and judged one by one (none)")
      ->check(CLI::Range(1, 4096));
  add_graph_options(*command, o->graph);
  command->add_option("--work", o->work, "Folder of graphs and logs (default: ARTIFACT.verify)")
      ->type_name(kFolder);
  command->add_flag("!--no-sites", o->sites, "Compare the logits only");
  add_run_options(*command, o->run);
  command->callback([o] { run(*o); });
}

}  // namespace qnpu
