#include "runtime/session.h"

#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "base/status.h"
#include "runtime/bind.h"
#include "runtime/execute.h"
#include "runtime/plan.h"

namespace qnpu {
namespace {

constexpr int kDefaultContext = 4096;

struct Free {
  void operator()(std::byte* pointer) const { std::free(pointer); }
};
using Arena = std::unique_ptr<std::byte, Free>;

// Large blocks come as untouched pages: what a session never uses costs no memory.
Arena allocate(size_t bytes) {
  Arena arena(static_cast<std::byte*>(std::aligned_alloc(64, bytes)));
  if (!arena) {
    fail("no memory for the session's {} MB: ask for a smaller context", bytes >> 20);
  }
  return arena;
}

// The number of OpenMP threads is the calling thread's; give it back as it was.
class ThreadScope {
 public:
  explicit ThreadScope(int threads) : before_(omp_get_max_threads()) {
    omp_set_num_threads(threads);
  }
  ~ThreadScope() { omp_set_num_threads(before_); }
  ThreadScope(const ThreadScope&) = delete;
  ThreadScope& operator=(const ThreadScope&) = delete;

 private:
  int before_;
};

int choose_context(const Artifact& artifact, int wished) {
  const int prefix = artifact.graph.prefix_length();
  if (wished == 0) wished = std::min(artifact.positions, kDefaultContext);
  if (wished < 0) fail("a context of {} positions: it must be at least 1", wished);
  if (wished > artifact.positions) {
    fail("a context of {} positions, but {} was made for {}: ask for fewer", wished,
         artifact.folder.string(), artifact.positions);
  }
  if (wished <= prefix) {
    fail("a context of {} positions, but the prefix of {} takes {} of them: ask for more", wished,
         artifact.folder.string(), prefix);
  }
  return wished;
}

// Rows of the value cache are that long. Multiples of 1 KB would fall into the same cache sets.
int cache_capacity(int context) {
  const int capacity = (context + 63) / 64 * 64;
  return capacity % 1024 == 0 ? capacity + 64 : capacity;
}

void check_deployable(const Artifact& artifact) {
  const std::string reason = simulated_only(artifact);
  if (reason.empty()) return;
  fail(
      "{} {}, which a static integer graph cannot: it can only be simulated in float, as `qnpu "
      "eval` does",
      artifact.folder.string(), reason);
}

enum class Rows { kNone, kLast, kAll };

}  // namespace

struct Session::Impl {
  std::shared_ptr<const Artifact> artifact;
  int context = 0;
  int capacity = 0;
  int max_rows = 0;
  int threads = 0;
  int prefix = 0;  // positions of the caches that are constants
  int position = 0;
  int vocab = 0;
  Plan plan;
  Arena arena;
  BoundGraph bound;
  std::vector<int16_t> widened;  // logits, where the graph's are 8-bit
  Trace trace;

  Impl(std::shared_ptr<const Artifact> artifact, const SessionOptions& options);
  void write_prefix();
  void check(std::span<const int32_t> tokens) const;
  std::span<const int16_t> run(std::span<const int32_t> tokens, Rows rows);
  void walk(const Step& step, size_t begin, size_t end);
  SiteValues values(size_t node, const Step& step) const;
  std::span<const int16_t> logits(const Step& step);
  const Site& logits_site() const { return artifact->graph.site(artifact->graph.nodes.back().out); }
};

Session::Impl::Impl(std::shared_ptr<const Artifact> from, const SessionOptions& options)
    : artifact(std::move(from)), context(choose_context(*artifact, options.context)) {
  check_deployable(*artifact);
  if (options.max_rows < 1) fail("walks of {} tokens: it must be at least 1", options.max_rows);
  if (options.threads < 0) fail("{} threads: give 0 (all cores) or more", options.threads);
  const Graph& graph = artifact->graph;
  capacity = cache_capacity(context);
  max_rows = std::min(options.max_rows, context);
  threads = options.threads == 0 ? omp_get_num_procs() : options.threads;
  prefix = position = graph.prefix_length();
  vocab = logits_site().cols;
  const ThreadScope scope(threads);  // scratch may depend on the number of threads
  plan = make_plan(graph, capacity, max_rows, graph_scratch_bytes(graph, capacity, max_rows));
  arena = allocate(plan.arena_bytes);
  bound = bind_graph(*artifact, plan, capacity, arena.get(), options.isa);
  write_prefix();
  if (bitwidth(logits_site().qparams.dtype) == 8) {
    widened.resize(static_cast<size_t>(max_rows) * static_cast<size_t>(vocab));
  }
}

// Once: later rows come behind these, so no call overwrites them.
void Session::Impl::write_prefix() {
  if (prefix == 0) return;
  AttentionShape shape = bound.attention;
  shape.tokens = prefix;
  for (size_t i = 0; i < bound.nodes.size(); ++i) {
    const BoundNode& node = bound.nodes[i];
    if (node.op != Op::kAppend) continue;
    const Site& cache = artifact->graph.site(artifact->graph.nodes[i].out);
    const int8_t* rows = artifact->tensors.at(cache.name + ".prefix").as<int8_t>().data();
    (node.keys ? append_keys : append_values)(rows, shape, static_cast<int8_t*>(node.out));
  }
}

void Session::Impl::check(std::span<const int32_t> tokens) const {
  if (tokens.empty()) fail("no tokens to run: give at least one");
  for (const int32_t token : tokens) {
    if (token < 0 || token >= artifact->graph.config.vocab_size) {
      fail("token {} is not in the vocabulary of {}: the text was encoded with another tokenizer",
           token, artifact->graph.config.vocab_size);
    }
  }
  if (tokens.size() > static_cast<size_t>(context - position)) {
    fail(
        "the context is full: {} tokens after the {} already seen are more than its {} "
        "positions{}; "
        "shorten the text or ask for a larger context",
        tokens.size(), position - prefix, context,
        prefix == 0 ? "" : fmt::format(" hold beside the {} of the prefix", prefix));
  }
}

void Session::Impl::walk(const Step& step, size_t begin, size_t end) {
  if (!trace) {
    execute(bound, step, begin, end);
    return;
  }
  for (size_t i = begin; i < end; ++i) {
    execute(bound, step, i, i + 1);
    trace(values(i, step));
  }
}

SiteValues Session::Impl::values(size_t node, const Step& step) const {
  const int index = artifact->graph.nodes[node].out;
  const Site& site = artifact->graph.site(index);
  std::byte* data = arena.get() + plan.sites[static_cast<size_t>(index)].offset;
  const bool by_capacity = site.role == Role::kScores || site.role == Role::kVCache;
  if (site.role == Role::kActivation) {
    data += int64_t{step.first} * site.cols * activation_bytes(site.qparams.dtype);
  }
  return {index, step.count - step.first, step.position + step.first, data,
          by_capacity ? capacity : site.cols};
}

std::span<const int16_t> Session::Impl::logits(const Step& step) {
  const Placement& buffer = plan.sites[static_cast<size_t>(artifact->graph.nodes.back().out)];
  const size_t offset = static_cast<size_t>(step.first) * static_cast<size_t>(vocab);
  const size_t count = static_cast<size_t>(step.count - step.first) * static_cast<size_t>(vocab);
  const std::byte* data = arena.get() + buffer.offset;
  if (widened.empty()) return {reinterpret_cast<const int16_t*>(data) + offset, count};
  // The same integers in 16 bits: logits_scale() is the 8-bit site's.
  std::copy_n(reinterpret_cast<const int8_t*>(data) + offset, count, widened.begin());
  return {widened.data(), count};
}

std::span<const int16_t> Session::Impl::run(std::span<const int32_t> tokens, Rows rows) {
  const ThreadScope scope(threads);
  Step step{tokens.data(), static_cast<int>(tokens.size()), position, 0};
  walk(step, 0, bound.tail);
  position += step.count;
  if (rows == Rows::kNone) return {};
  if (rows == Rows::kLast) step.first = step.count - 1;
  walk(step, bound.tail, bound.nodes.size());
  return logits(step);
}

Session::Session(std::shared_ptr<const Artifact> artifact, const SessionOptions& options)
    : impl_(std::make_unique<Impl>(std::move(artifact), options)) {}
Session::~Session() = default;

const Graph& Session::graph() const { return impl_->artifact->graph; }
int Session::context() const { return impl_->context; }
int Session::position() const { return impl_->position; }
int Session::prefix_length() const { return impl_->prefix; }
int Session::max_rows() const { return impl_->max_rows; }
size_t Session::arena_bytes() const { return impl_->plan.arena_bytes; }
size_t Session::cache_bytes() const { return impl_->plan.cache_bytes; }
double Session::logits_scale() const { return impl_->logits_site().qparams.scale.at(0); }
void Session::set_trace(Trace trace) { impl_->trace = std::move(trace); }
void Session::reset() { impl_->position = impl_->prefix; }

void Session::truncate(int position) {
  if (position < impl_->prefix || position > impl_->position) {
    fail("cannot go back to position {}: the session is at {}{}", position, impl_->position,
         impl_->prefix == 0 ? "" : fmt::format(", behind a prefix of {}", impl_->prefix));
  }
  impl_->position = position;
}

std::span<const int16_t> Session::run(std::span<const int32_t> tokens, bool all_rows) {
  impl_->check(tokens);
  if (tokens.size() > static_cast<size_t>(impl_->max_rows)) {
    fail("{} tokens in one call, but this session takes {} at a time: cut them", tokens.size(),
         impl_->max_rows);
  }
  return impl_->run(tokens, all_rows ? Rows::kAll : Rows::kLast);
}

std::span<const int16_t> Session::prefill(std::span<const int32_t> tokens) {
  impl_->check(tokens);
  const auto piece = static_cast<size_t>(impl_->max_rows);
  for (; tokens.size() > piece; tokens = tokens.subspan(piece)) {
    impl_->run(tokens.first(piece), Rows::kNone);
  }
  return impl_->run(tokens, Rows::kLast);
}

}  // namespace qnpu
