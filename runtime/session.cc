#include "runtime/session.h"

#include <omp.h>

#include <algorithm>

#include "base/status.h"
#include "kernels/matmul/panels.h"
#include "runtime/batch.h"
#include "runtime/bind.h"
#include "runtime/execute.h"
#include "runtime/kv_cache.h"
#include "runtime/plan.h"
#include "runtime/session_setup.h"
#include "runtime/weight_panels.h"

namespace qnpu {
namespace {

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

enum class Rows { kNone, kLast, kAll };

}  // namespace

struct Session::Impl {
  std::shared_ptr<const Artifact> artifact;
  int context = 0;
  int capacity = 0;
  int max_rows = 0;
  int threads = 0;
  int prefix = 0;              // positions of the caches that are constants
  std::vector<int> positions;  // of each sequence
  int vocab = 0;
  Plan plan;
  Arena arena;
  Arena trace_arena;
  BoundGraph bound;
  std::shared_ptr<const WeightPanels> panels;  // of all sessions that were made from one
  Batch batch{1, 1};
  std::vector<int16_t> widened;  // logits, where the graph's are 8-bit
  Trace trace;
  Watch watch;

  Impl(std::shared_ptr<const Artifact> artifact, const SessionOptions& options,
       std::shared_ptr<const WeightPanels> panels);
  PlanSize plan_size(int sequences, Isa isa) const;
  void check(std::span<const int32_t> tokens, int sequence) const;
  void check_sequence(int sequence) const;
  void check(std::span<const Piece> pieces) const;
  std::span<const int16_t> run(std::span<const int32_t> tokens, Rows rows);
  std::span<const int16_t> run(std::span<const Piece> pieces);
  void walk(const Step& step, size_t begin, size_t end);
  SiteValues values(size_t node, const Step& step) const;
  std::span<const int16_t> logits(const Step& step);
  void set_trace(Trace wished);
  const Site& logits_site() const { return artifact->graph.site(artifact->graph.nodes.back().out); }
};

Session::Impl::Impl(std::shared_ptr<const Artifact> from, const SessionOptions& options,
                    std::shared_ptr<const WeightPanels> ready)
    : artifact(std::move(from)),
      context(choose_context(*artifact, options)),
      panels(std::move(ready)) {
  const Graph& graph = artifact->graph;
  capacity = cache_capacity(context);
  max_rows =
      static_cast<int>(std::min<int64_t>(options.max_rows, int64_t{context} * options.sequences));
  batch = Batch(max_rows, options.sequences);
  threads = options.threads == 0 ? omp_get_num_procs() : options.threads;
  prefix = graph.prefix_length();
  positions.assign(static_cast<size_t>(options.sequences), prefix);
  vocab = logits_site().cols;
  const ThreadScope scope(threads);  // scratch may depend on the number of threads
  plan = make_plan(graph, plan_size(options.sequences, options.isa));
  arena = allocate_arena(plan.arena_bytes, options.whole_memory);
  bound = bind_graph(*artifact, plan, capacity, arena.get(), options.isa);
  if (!panels || !panels->give(bound)) {
    panels = std::make_shared<WeightPanels>(bound);
    panels->give(bound);
  }
  for (int i = 0; i < options.sequences; ++i) write_prefix(*artifact, bound, i);
  if (bitwidth(logits_site().qparams.dtype) == 8) {
    widened.resize(static_cast<size_t>(max_rows) * static_cast<size_t>(vocab));
  }
}

PlanSize Session::Impl::plan_size(int sequences, Isa isa) const {
  const Graph& graph = artifact->graph;
  return {.capacity = capacity,
          .max_rows = max_rows,
          .sequences = sequences,
          .cache_panels = takes_panels(isa),
          .scratch_bytes = graph_scratch_bytes(graph, capacity, max_rows),
          .trace_scratch_bytes = trace_scratch_bytes(graph, capacity, max_rows)};
}

void Session::Impl::check_sequence(int sequence) const {
  if (sequence >= 0 && static_cast<size_t>(sequence) < positions.size()) return;
  fail("there is no sequence {}: the session was made for {}", sequence, positions.size());
}

void Session::Impl::check(std::span<const int32_t> tokens, int sequence) const {
  check_sequence(sequence);
  if (tokens.empty()) fail("no tokens to run: give at least one");
  for (const int32_t token : tokens) {
    if (token < 0 || token >= artifact->graph.config.vocab_size) {
      fail("token {} is not in the vocabulary of {}: the text was encoded with another tokenizer",
           token, artifact->graph.config.vocab_size);
    }
  }
  const int position = positions[static_cast<size_t>(sequence)];
  if (tokens.size() > static_cast<size_t>(context - position)) {
    fail(
        "the context is full: {} tokens after the {} already seen are more than its {} "
        "positions{}; "
        "shorten the text or ask for a larger context",
        tokens.size(), position - prefix, context,
        prefix == 0 ? "" : fmt::format(" hold beside the {} of the prefix", prefix));
  }
}

void Session::Impl::check(std::span<const Piece> pieces) const {
  if (pieces.empty()) fail("no pieces to run: give at least one");
  size_t rows = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    check(pieces[i].tokens, pieces[i].sequence);
    rows += pieces[i].tokens.size();
    for (size_t j = 0; j < i; ++j) {
      if (pieces[j].sequence != pieces[i].sequence) continue;
      fail("sequence {} is in two pieces of one call: join them", pieces[i].sequence);
    }
  }
  if (rows > static_cast<size_t>(max_rows)) {
    fail("{} tokens in one call, but this session takes {} at a time: cut them", rows, max_rows);
  }
  if (trace) fail("a traced session runs one sequence at a time: call run()");
}

void Session::Impl::walk(const Step& step, size_t begin, size_t end) {
  if (!trace && !watch) {
    execute(bound, step, begin, end);
    return;
  }
  for (size_t i = begin; i < end; ++i) {
    execute(bound, step, i, i + 1);
    if (trace) trace(values(i, step));
    if (watch) watch(artifact->graph.nodes[i]);
  }
}

// Of a step with one segment.
SiteValues Session::Impl::values(size_t node, const Step& step) const {
  const int index = artifact->graph.nodes[node].out;
  const Site& site = artifact->graph.site(index);
  const std::byte* base = site.role == Role::kScores ? trace_arena.get() : arena.get();
  std::byte* data = const_cast<std::byte*>(base) + plan.sites[static_cast<size_t>(index)].offset;
  const bool by_capacity = site.role == Role::kScores || site.role == Role::kVCache;
  if (site.role == Role::kActivation) {
    data += int64_t{step.first} * site.cols * activation_bytes(site.qparams.dtype);
  }
  return {index, step.count - step.first, step.segments[0].position + step.first, data,
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
  const int count = static_cast<int>(tokens.size());
  const Segment whole = {0, count, positions[0], 0};
  Step step{tokens.data(), count, 0, {&whole, 1}};
  walk(step, 0, bound.tail);
  positions[0] += count;
  if (rows == Rows::kNone) return {};
  if (rows == Rows::kLast) step.first = count - 1;
  walk(step, bound.tail, bound.nodes.size());
  return logits(step);
}

std::span<const int16_t> Session::Impl::run(std::span<const Piece> pieces) {
  const ThreadScope scope(threads);
  const Step last = batch.order(pieces, positions);
  Step all = last;
  all.first = 0;
  walk(all, 0, bound.tail);
  for (const Piece& piece : pieces) {
    positions[static_cast<size_t>(piece.sequence)] += static_cast<int>(piece.tokens.size());
  }
  walk(last, bound.tail, bound.nodes.size());
  return logits(last);
}

// Whatever can fail comes first.
void Session::Impl::set_trace(Trace wished) {
  if (positions.size() > 1) {
    if (wished) fail("a session of several sequences cannot be traced");
    return;
  }
  if (wished && !trace_arena) trace_arena = allocate_arena(plan.trace_bytes);
  // The steps of attention read rows.
  set_cache_layout(bound, !wished && takes_panels(bound.isa), positions[0]);
  bind_trace(artifact->graph, plan, wished ? trace_arena.get() : nullptr, bound);
  trace = std::move(wished);
}

Session::Session(std::shared_ptr<const Artifact> artifact, const SessionOptions& options)
    : impl_(std::make_unique<Impl>(std::move(artifact), options, nullptr)) {}
Session::Session(const Session& other, const SessionOptions& options)
    : impl_(std::make_unique<Impl>(other.impl_->artifact, options, other.impl_->panels)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

const Graph& Session::graph() const { return impl_->artifact->graph; }
int Session::context() const { return impl_->context; }
int Session::sequences() const { return static_cast<int>(impl_->positions.size()); }
int Session::position(int sequence) const {
  impl_->check_sequence(sequence);
  return impl_->positions[static_cast<size_t>(sequence)];
}
int Session::prefix_length() const { return impl_->prefix; }
int Session::threads() const { return impl_->threads; }
int Session::max_rows() const { return impl_->max_rows; }
size_t Session::arena_bytes() const { return impl_->plan.arena_bytes; }
size_t Session::cache_bytes() const { return impl_->plan.cache_bytes * impl_->positions.size(); }
double Session::logits_scale() const { return impl_->logits_site().qparams.scale.at(0); }
void Session::set_trace(Trace trace) { impl_->set_trace(std::move(trace)); }
void Session::set_watch(Watch watch) { impl_->watch = std::move(watch); }

void Session::reset(int sequence) {
  impl_->check_sequence(sequence);
  impl_->positions[static_cast<size_t>(sequence)] = impl_->prefix;
}

void Session::truncate(int position, int sequence) {
  const int now = this->position(sequence);
  if (position < impl_->prefix || position > now) {
    fail("cannot go back to position {}: the session is at {}{}", position, now,
         impl_->prefix == 0 ? "" : fmt::format(", behind a prefix of {}", impl_->prefix));
  }
  impl_->positions[static_cast<size_t>(sequence)] = position;
}

void Session::copy(int from, int to, int position) {
  const int now = this->position(from);
  impl_->check_sequence(to);
  if (position < impl_->prefix || position > now) {
    fail("cannot copy {} positions: sequence {} has {}{}", position, from, now,
         impl_->prefix == 0 ? "" : fmt::format(", {} of them the prefix", impl_->prefix));
  }
  if (from != to) copy_caches(impl_->bound, from, to, position);
  impl_->positions[static_cast<size_t>(to)] = position;
}

std::span<const int16_t> Session::run(std::span<const int32_t> tokens, bool all_rows) {
  impl_->check(tokens, 0);
  if (tokens.size() > static_cast<size_t>(impl_->max_rows)) {
    fail("{} tokens in one call, but this session takes {} at a time: cut them", tokens.size(),
         impl_->max_rows);
  }
  return impl_->run(tokens, all_rows ? Rows::kAll : Rows::kLast);
}

std::span<const int16_t> Session::prefill(std::span<const int32_t> tokens) {
  impl_->check(tokens, 0);
  const auto piece = static_cast<size_t>(impl_->max_rows);
  for (; tokens.size() > piece; tokens = tokens.subspan(piece)) {
    impl_->run(tokens.first(piece), Rows::kNone);
  }
  return impl_->run(tokens, Rows::kLast);
}

std::span<const int16_t> Session::run_batch(std::span<const Piece> pieces) {
  impl_->check(pieces);
  return impl_->run(pieces);
}

}  // namespace qnpu
