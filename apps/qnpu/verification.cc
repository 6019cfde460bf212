#include "apps/qnpu/verification.h"

#include <fmt/format.h>

#include <algorithm>

#include "apps/qnpu/compilation.h"
#include "apps/qnpu/tool_process.h"
#include "base/clock.h"
#include "base/status.h"
#include "eval/metrics.h"
#include "export/onnx_bundle.h"
#include "io/files.h"
#include "runtime/session.h"

namespace qnpu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Tells a folder of a check's own, first of all that is written there, and what is in it.
constexpr char kMadeFrom[] = "made_from.json";

Agreement agreement_of(const Graph& graph, const Node& node) {
  const bool wide = bitwidth(graph.site(node.out).qparams.dtype) == 16;
  switch (node.op) {
    case Op::kRmsNorm:
      return {"99.5 % equal, one step", 0.995, 1};
    case Op::kSoftmax:
      return {"within 40 of 65535", 0.0, 40};
    case Op::kSilu:
      if (wide) return {"within 3 steps", 0.0, 3};
      break;
    case Op::kLinear:
      // A weight scale whose product has 12 bits exactly is not found for every channel.
      if (wide) return {"99.99 % equal, one step", 0.9999, 1};
      if (node.bias && !wide) return {"99 % equal, one step", 0.99, 1};
      break;
    default:
      break;
  }
  return {"equal", 1.0, 0};
}

int32_t likeliest(std::span<const int16_t> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// A row of their logits, u16 or u8 as the head is wide, around zero as ours are.
template <typename T>
void read_row(std::span<const T> row, std::vector<int16_t>& to) {
  constexpr int kHalf = 1 << (8 * sizeof(T) - 1);
  to.resize(row.size());
  for (size_t i = 0; i < row.size(); ++i) to[i] = static_cast<int16_t>(int{row[i]} - kHalf);
}

void read_row(const TensorView& logits, size_t row, size_t vocab, std::vector<int16_t>& to) {
  if (logits.dtype == "U8") return read_row(logits.as<uint8_t>().subspan(row * vocab, vocab), to);
  read_row(logits.as<uint16_t>().subspan(row * vocab, vocab), to);
}

// Of both, token by token.
struct LogitsSums {
  LikelihoodSum ours, theirs;
  DivergenceSum divergence;
  SiteDifference difference;
  int64_t greedy = 0, greedy_equal = 0;
  std::vector<float> our_row, their_row;

  void add(std::span<const int16_t> ours_q, std::span<const int16_t> theirs_q, float scale,
           int target) {
    our_row.resize(ours_q.size());
    their_row.resize(ours_q.size());
    for (size_t i = 0; i < ours_q.size(); ++i) {
      our_row[i] = scale * ours_q[i];
      their_row[i] = scale * theirs_q[i];
      difference.count(theirs_q[i] - ours_q[i]);
    }
    ours.add(our_row, target);
    theirs.add(their_row, target);
    divergence.add(our_row, their_row);
  }
  // A token that we wrote greedily: would they have written it?
  void judge(std::span<const int16_t> theirs_q, int32_t written) {
    ++greedy;
    greedy_equal += likeliest(theirs_q) == written;
  }
  void fill(LogitsComparison& result) const {
    result.tokens = divergence.tokens;
    result.perplexity = ours.perplexity();
    result.their_perplexity = theirs.perplexity();
    result.kl_divergence = divergence.kl_divergence();
    result.token_agreement = divergence.top1_agreement();
    result.logits = difference;
    result.greedy = greedy;
    result.greedy_equal = greedy_equal;
  }
};

void write_tokens(const fs::path& path, const std::vector<int32_t>& tokens) {
  write_safetensors(path,
                    {{"tokens", "I32", {std::ssize(tokens)}, std::as_bytes(std::span(tokens))}});
}

// Each node's output twice: as both run freely, and with theirs put in the place of ours.
std::vector<SiteComparison> compare_nodes(const Graph& graph, Session& session,
                                          const std::vector<int32_t>& tokens,
                                          const TracedSites& theirs) {
  std::vector<SiteComparison> result(graph.nodes.size());
  for (const bool force : {false, true}) {
    size_t node = 0;
    session.reset();
    session.set_trace([&](const SiteValues& ours) {
      SiteComparison& at = result[node];
      const Node& n = graph.nodes[node++];
      at.site = graph.site(ours.site).name;
      at.op = n.op;
      if (!theirs.has(ours.site)) return;
      (force ? at.same_inputs : at.free) = theirs.compare(ours, force);
      if (force) at.asked = agreement_of(graph, n);
    });
    session.run(tokens, /*all_rows=*/true);
  }
  return result;
}

}  // namespace

std::string disagreement(const std::vector<SiteComparison>& sites) {
  std::map<std::pair<Op, std::string>, SiteDifference> kinds;
  for (const SiteComparison& site : sites) {
    const SiteDifference& d = site.same_inputs;
    kinds[{site.op, site.asked.text}].add(d);
    if (d.largest > site.asked.most) {
      return fmt::format(
          "site '{}' differs by {} steps given the same inputs ({:.4f} % are equal); asked is: {}",
          site.site, d.largest, 100 * d.equal_share(), site.asked.text);
    }
  }
  for (const SiteComparison& site : sites) {
    const double share = kinds[{site.op, site.asked.text}].equal_share();
    if (share >= site.asked.least_equal) continue;
    return fmt::format(
        "of all values of '{}' {:.4f} % are equal given the same inputs; asked is: {}",
        op_name(site.op), 100 * share, site.asked.text);
  }
  return "";
}

Verification::Verification(std::shared_ptr<const Artifact> artifact, DecoderOptions options,
                           Judge judge, fs::path work, Progress& progress)
    : artifact_(std::move(artifact)),
      options_(std::move(options)),
      judge_(std::move(judge)),
      work_(std::move(work)),
      progress_(progress) {
  options_.all_logits = true;
}

void renew_folder(const fs::path& folder) {
  check_target(folder, kMadeFrom, "", "earlier check");
  fs::remove_all(folder);
  fs::create_directories(folder);
  write_json(folder / kMadeFrom, json::object());
}

json Verification::prepare(const fs::path& folder, const DecoderOptions& options,
                           const std::vector<std::string>& graphs) {
  const bool compiles = judge_.on == "htp-emulator";
  const json made_from = {{"artifact", artifact_->manifest.at("checksum")},
                          {"context", options.context},
                          {"rows", options.rows},
                          {"parts", options.part.count},
                          {"most_scores", options.most_scores},
                          {"program", exporter_checksum(judge_.soc)},
                          {"compiled", compiles ? json(judge_.soc) : json()},
                          {"graphs", graphs}};
  const fs::path stamp = folder / kMadeFrom;
  if (fs::exists(stamp)) {
    const json found = read_json(stamp);
    if (found.value("made_from", json()) == made_from) return found.at("compiled");
  }
  renew_folder(folder);
  write_onnx(*artifact_, options, folder);
  json compiled;
  if (compiles) compiled = compile_graphs(folder, {judge_.soc, graphs}, progress_);
  write_json(stamp, {{"made_from", made_from}, {"compiled", compiled}});
  return compiled;
}

json Verification::emulate(const fs::path& folder, const std::vector<int32_t>& tokens,
                           int prefill) {
  write_tokens(folder / "tokens.safetensors", tokens);
  return run_tool("npu/htp/emulate.py",
                  {folder.string(), "--on", judge_.on, "--soc", judge_.soc, "--prefill",
                   std::to_string(prefill), "--tokens", (folder / "tokens.safetensors").string(),
                   "--out", (folder / "outputs.safetensors").string()},
                  folder / "emulate.log", progress_);
}

LogitsComparison Verification::compare_logits(const std::vector<int32_t>& tokens, int prefill,
                                              int greedy) {
  LogitsComparison result;
  const fs::path folder = work_ / "graphs";
  std::vector<std::string> graphs;
  if (prefill > 0) graphs.push_back("prefill");
  if (prefill < std::ssize(tokens)) graphs.push_back("decode");
  result.compiled = prepare(folder, options_, graphs);
  result.their_seconds = emulate(folder, tokens, prefill).at("seconds").get<double>();
  const TensorFile outputs = TensorFile::open(folder / "outputs.safetensors");
  const TensorView& theirs = outputs.at("logits");
  std::vector<int16_t> their_row;
  Session session(artifact_, {.context = options_.context, .max_rows = options_.rows});
  const auto vocab = static_cast<size_t>(artifact_->graph.config.vocab_size);
  LogitsSums sums;
  for (size_t begin = 0; begin < tokens.size();) {
    const bool one = begin >= static_cast<size_t>(prefill);
    const size_t most = one ? 1 : std::min<size_t>(options_.rows, prefill - begin);
    const auto start = Clock::now();
    const auto rows = session.run(std::span(tokens).subspan(begin, most), /*all_rows=*/true);
    result.seconds += seconds_since(start);
    for (size_t i = 0; i < most && begin + i + 1 < tokens.size(); ++i) {
      read_row(theirs, begin + i, vocab, their_row);
      const int32_t next = tokens[begin + i + 1];
      sums.add(rows.subspan(i * vocab, vocab), their_row,
               static_cast<float>(session.logits_scale()), next);
      const bool written = begin + i + 1 + static_cast<size_t>(greedy) >= tokens.size();
      if (written) sums.judge(their_row, next);
    }
    begin += most;
  }
  sums.fill(result);
  return result;
}

std::vector<SiteComparison> Verification::compare_sites(std::vector<int32_t> tokens) {
  const Graph& graph = artifact_->graph;
  const fs::path folder = work_ / "sites";
  DecoderOptions options = options_;
  options.trace = true;
  options.context = std::min(graph.prefix_length() + 2 * options.rows, options_.context);
  tokens.resize(std::min(tokens.size(), static_cast<size_t>(options.rows)));
  prepare(folder, options, {"prefill"});
  const int count = static_cast<int>(tokens.size());
  emulate(folder, tokens, count);
  const json about = read_json(folder / "export.json");
  const TracedSites theirs(graph, options.rows, about.at("names"), options.context,
                           TensorFile::open(folder / "outputs.safetensors"));
  Session session(artifact_, {.context = options.context, .max_rows = options.rows});
  return compare_nodes(graph, session, tokens, theirs);
}

}  // namespace qnpu
