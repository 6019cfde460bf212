// How fast the integer runtime is here: prefill at several lengths of prompt, decode behind several
// contexts, and with --profile the share of each kind of operation.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "apps/qnpu/commands.h"
#include "apps/qnpu/options.h"
#include "apps/qnpu/program.h"
#include "apps/qnpu/progress.h"
#include "apps/qnpu/run_log.h"
#include "base/clock.h"
#include "base/status.h"
#include "runtime/sampling.h"
#include "runtime/session.h"

namespace qnpu {
namespace {

using nlohmann::json;
struct Options : ArtifactOptions {
  std::vector<int> prompts = {128, 512, 2048};
  std::vector<int> contexts = {128, 1024, 4000};
  std::vector<int> batches = {1};
  int decode = 32;
  int repeat = 3;
  int threads = 0;
  int rows = SessionOptions().max_rows;
  bool profile = false;
  RunOptions run;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// A measurement of several runs, each told to `progress`.
struct Repeats {
  Progress& progress;
  int count;
  int64_t done = 0;
  int64_t total;

  // Median of the seconds that `run(i)` gives.
  template <typename F>
  double median_of(F run) {
    std::vector<double> seconds;
    for (int i = 0; i < count; ++i) {
      progress.update("bench, runs", done++, total);
      seconds.push_back(run(i));
    }
    return median(seconds);
  }
};

std::vector<int32_t> random_tokens(int count, int vocab, uint32_t seed) {
  std::mt19937 engine(seed);
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens)
    token = static_cast<int32_t>(engine() % static_cast<uint32_t>(vocab));
  return tokens;
}

// Seconds by kind of operation, told by when the walk came to the next node.
class Profile {
 public:
  explicit Profile(Session& session) : session_(session) {
    session.set_watch([this](const Node& node) {
      const Clock::time_point now = Clock::now();
      const char* op = node.op == Op::kContext ? "attention" : op_name(node.op);
      seconds_[op] += std::chrono::duration<double>(now - last_).count();
      last_ = Clock::now();
    });
  }
  ~Profile() { session_.set_watch({}); }
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;

  void start() { last_ = Clock::now(); }
  json shares() const {
    double all = 0;
    for (const auto& [op, seconds] : seconds_) all += seconds;
    json result;
    for (const auto& [op, seconds] : seconds_) result[op] = seconds / all;
    return result;
  }

 private:
  Session& session_;
  std::map<std::string, double> seconds_;
  Clock::time_point last_;
};

double prefill_seconds(Session& session, int prompt, uint32_t seed) {
  const auto tokens = random_tokens(prompt, session.graph().config.vocab_size, seed);
  session.reset();
  const Clock::time_point start = Clock::now();
  session.prefill(tokens);
  return seconds_since(start);
}

// Seconds of `steps` greedy steps of the first `batch` sequences.
double decode_seconds(Session& session, int steps, int batch) {
  std::vector<int32_t> tokens(static_cast<size_t>(batch), 1);
  std::vector<Piece> pieces;
  for (int i = 0; i < batch; ++i) pieces.push_back({i, std::span(tokens).subspan(size_t(i), 1)});
  const Clock::time_point start = Clock::now();
  for (int step = 0; step < steps; ++step) {
    const auto logits = session.run_batch(pieces);
    const size_t vocab = logits.size() / pieces.size();
    for (size_t i = 0; i < pieces.size(); ++i) {
      tokens[i] = greedy_token(logits.subspan(i * vocab, vocab));
    }
  }
  return seconds_since(start);
}

json measure_prefill(Session& session, const Options& options, int prompt, Repeats& repeats) {
  const double seconds = repeats.median_of(
      [&](int i) { return prefill_seconds(session, prompt, static_cast<uint32_t>(i)); });
  json result = {{"prompt", prompt}, {"tokens_per_second", prompt / seconds}};
  if (options.profile) {
    Profile profile(session);
    profile.start();
    prefill_seconds(session, prompt, 0);
    result["shares"] = profile.shares();
  }
  return result;
}

json measure_decode(Session& session, const Options& options, int context, int batch,
                    Repeats& repeats) {
  prefill_seconds(session, context, 0);
  const int position = session.position();
  for (int i = 1; i < batch; ++i) session.copy(0, i, position);
  const auto run = [&] {
    for (int i = 0; i < batch; ++i) session.truncate(position, i);
    return decode_seconds(session, options.decode, batch);
  };
  const double seconds = repeats.median_of([&](int) { return run(); });
  json result = {{"context", context},
                 {"batch", batch},
                 {"tokens_per_second", options.decode * batch / seconds}};
  if (options.profile) {
    Profile profile(session);
    profile.start();
    run();
    result["shares"] = profile.shares();
  }
  return result;
}

void print_rows(const json& rows, const char* key) {
  for (const json& row : rows) {
    fmt::print("{:<8}{:>6}{:>12.1f} tokens/s", key, row[key].get<int>(),
               row["tokens_per_second"].get<double>());
    if (row.value("batch", 1) > 1) fmt::print("  ({} sequences)", row["batch"].get<int>());
    if (row.contains("shares")) {
      for (const auto& [op, share] : row["shares"].items()) {
        if (share.get<double>() >= 0.005)
          fmt::print("  {} {:.0f} %", op, 100 * share.get<double>());
      }
    }
    fmt::print("\n");
  }
}

// Lengths that the artifact has no positions for are cut to what it has. Returns the positions
// needed.
int fit(const Artifact& artifact, Options& options) {
  const int prefix = artifact.graph.prefix_length();
  const int room = artifact.positions - prefix;
  if (room <= options.decode) {
    fail(
        "{} has {} positions beside its prefix, too few to decode {} tokens: give a smaller "
        "--decode",
        artifact.folder.string(), room, options.decode);
  }
  int longest = 0;
  for (int& n : options.prompts) longest = std::max(longest, n = std::min(n, room));
  for (int& n : options.contexts) {
    n = std::min(n, room - options.decode);
    longest = std::max(longest, n + options.decode);
  }
  return longest + prefix;
}

SessionOptions session_options(const Artifact& artifact, Options& options) {
  SessionOptions result;
  result.context = fit(artifact, options);
  result.threads = options.threads;
  result.sequences = *std::max_element(options.batches.begin(), options.batches.end());
  result.max_rows = std::max(options.rows, result.sequences);  // a row of each is one walk
  return result;
}

void measure(Session& session, const Options& options, json& result) {
  Progress progress(options.run.quiet);
  const auto measurements =
      options.prompts.size() + options.contexts.size() * options.batches.size();
  Repeats repeats{progress, options.repeat, 0, static_cast<int64_t>(measurements) * options.repeat};
  prefill_seconds(session, options.prompts[0], 0);  // pages of the weights
  for (int n : options.prompts) {
    result["prefill"].push_back(measure_prefill(session, options, n, repeats));
  }
  for (int n : options.contexts) {
    for (int batch : options.batches) {
      result["decode"].push_back(measure_decode(session, options, n, batch, repeats));
    }
  }
  progress.update("bench, runs", repeats.total, repeats.total);
}

void run(Options options) {
  const Clock::time_point start = Clock::now();
  const auto artifact = load_artifact(options.artifact);
  begin_run(options.run);
  const SessionOptions wanted = session_options(*artifact, options);
  Session session(artifact, wanted);
  json result = {{"load_seconds", seconds_since(start)},
                 {"prefill", json::array()},
                 {"decode", json::array()},
                 {"isa", isa_name(wanted.isa)}};
  measure(session, options, result);
  log_result(result);
  if (options.json) return print_json(result);
  fmt::print("loaded in {:.0f} ms; {}\n", 1e3 * result["load_seconds"].get<double>(),
             isa_name(wanted.isa));
  print_rows(result["prefill"], "prompt");
  print_rows(result["decode"], "context");
}

}  // namespace

void add_bench_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("bench", "Speed of an artifact in the integer runtime");
  command->group(kUse)->footer(
      "qnpu bench my-model\nqnpu bench my-model --contexts 1024 --batches 1,8 --profile");
  const auto options = std::make_shared<Options>();
  add_artifact_options(*command, *options);
  command->add_option("--prompts", options->prompts, "Tokens of the prompts to prefill")
      ->delimiter(',')
      ->check(positive_integer())
      ->capture_default_str();
  command->add_option("--contexts", options->contexts, "Tokens seen before decoding")
      ->delimiter(',')
      ->check(positive_integer())
      ->capture_default_str();
  command->add_option("--batches", options->batches, "Sequences decoded together")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->add_option("--decode", options->decode, "Tokens to decode")
      ->check(positive_integer())
      ->capture_default_str();
  command->add_option("--repeat", options->repeat, "Of which the median is taken")
      ->check(positive_integer())
      ->capture_default_str();
  command->add_option("--rows", options->rows, "Tokens per walk of the graph")
      ->check(positive_integer())
      ->capture_default_str();
  add_threads_option(*command, options->threads);
  command->add_flag("--profile", options->profile, "Share of each kind of operation");
  add_run_options(*command, options->run);
  command->callback([options] { run(*options); });
}

}  // namespace qnpu
