#include "server/engine.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <new>
#include <utility>

#include "base/status.h"
#include "io/chat_template.h"
#include "kernels/parallel.h"

namespace qnpu::server {
namespace {

// Tokens of a walk. More make prompts a little faster and everybody's next token later.
constexpr int kRows = 128;

SessionOptions session_options(const EngineOptions& options) {
  if (options.slots < 1 || options.slots > kRows / 2) {
    fail("{} slots: give 1 to {}", options.slots, kRows / 2);
  }
  return {.context = options.context,
          .max_rows = kRows,
          .threads = options.threads,
          .sequences = options.slots,
          .whole_memory = true,
          .isa = options.isa};
}

}  // namespace

struct Engine::Generation {
  GenerationRequest request;
  std::shared_ptr<Channel> channel;
  int choice = 0;
  Clock::time_point submitted = Clock::now();
  Sampler sampler;
  size_t read = 0;    // tokens of the prompt that are in the cache
  int32_t next = -1;  // the last token generated, which was not run yet
  int generated = 0;

  Generation(GenerationRequest r, std::shared_ptr<Channel> c, int index)
      : request(std::move(r)), channel(std::move(c)), choice(index), sampler(request.sampling) {}
  bool is_reading() const { return read < request.prompt.size(); }
  bool says_prompt() const { return request.prompt_logprobs && request.top_logprobs.has_value(); }
};

// A generation's next token: from its row of logits [V] to what is said of it.
struct Engine::Draw {
  int slot;
  std::span<const int16_t> row;
  TokenOutput output = {};
};

Engine::Engine(const std::shared_ptr<const Artifact>& artifact, const EngineOptions& options,
               Metrics& metrics)
    : options_(options),
      metrics_(metrics),
      session_(artifact, session_options(options)),
      vocab_size_(artifact->graph.config.vocab_size),
      softmax_(session_.logits_scale()),
      slots_(static_cast<size_t>(options.slots)),
      active_(static_cast<size_t>(options.slots)) {
  for (const int token : qnpu::end_tokens(artifact->folder)) end_tokens_.push_back(token);
  thread_ = std::thread([this] { work(); });
}

Engine::~Engine() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = cancelling_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Engine::check(const GenerationRequest& request) const {
  if (request.prompt.empty()) fail("the prompt has no tokens");
  if (request.prompt.size() > static_cast<size_t>(longest_prompt())) {
    fail("a prompt of {} tokens, but the context has room for {}", request.prompt.size(),
         longest_prompt());
  }
  for (const int32_t token : request.prompt) {
    if (token >= 0 && token < vocab_size_) continue;
    fail("token {} is not in the vocabulary of {}", token, vocab_size_);
  }
  if (request.max_tokens < 0) fail("max_tokens of {}: give 0 or more", request.max_tokens);
}

bool Engine::submit(std::vector<GenerationRequest> requests,
                    const std::shared_ptr<Channel>& channel) {
  std::vector<std::unique_ptr<Generation>> made;
  for (GenerationRequest& request : requests) {
    check(request);
    const int choice = static_cast<int>(made.size());
    made.push_back(std::make_unique<Generation>(std::move(request), channel, choice));
  }
  {
    const std::lock_guard lock(mutex_);
    if (queue_.size() + made.size() > static_cast<size_t>(options_.max_queue)) return false;
    for (auto& generation : made) queue_.push_back(std::move(generation));
  }
  wake_.notify_one();
  return true;
}

void Engine::cancel_all() {
  {
    const std::lock_guard lock(mutex_);
    cancelling_ = true;
  }
  wake_.notify_one();
}

bool Engine::is_idle() const {
  const std::lock_guard lock(mutex_);
  return queue_.empty() && running_ == 0;
}

Gauges Engine::gauges() const {
  const std::lock_guard lock(mutex_);
  return {
      .queued = static_cast<int>(queue_.size()), .slots = options_.slots, .slots_used = running_};
}

void Engine::work() {
  omp_set_num_threads(session_.threads());  // of this thread's parallel loops
  while (true) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stopping_ || !queue_.empty() || running_ > 0; });
      admit();
      if (stopping_ && running_ == 0) return;
    }
    step();
  }
}

// Why a generation has to end before its time; kNone if it does not. With the lock held.
Finish Engine::wish_to_end(const Generation& g) const {
  if (cancelling_ || g.channel->is_cancelled(g.choice)) return Finish::kCancelled;
  return Clock::now() > g.request.deadline ? Finish::kTimeout : Finish::kNone;
}

// With the lock held: those in the queue that nobody waits for leave it, the first ones of the rest
// get the free slots.
void Engine::admit() {
  std::erase_if(queue_, [&](const auto& g) {
    const Finish how = wish_to_end(*g);
    if (how != Finish::kNone) g->channel->push({g->choice, how});
    return how != Finish::kNone;
  });
  while (!queue_.empty()) {
    const std::vector<int32_t>& prompt = queue_.front()->request.prompt;
    const Placement placement = place(slots_, prompt);
    if (placement.slot < 0) return;
    // Logits of a prompt's tokens have to be computed.
    const int kept = queue_.front()->says_prompt() ? 0 : placement.tokens;
    session_.copy(placement.source, placement.slot, session_.prefix_length() + kept);
    Slot& slot = slots_[static_cast<size_t>(placement.slot)];
    slot.cached.assign(prompt.begin(), prompt.begin() + kept);
    slot.busy = true;
    slot.used = ++admitted_;
    queue_.front()->read = static_cast<size_t>(kept);
    metrics_.prompt_tokens(0, kept);
    active_[static_cast<size_t>(placement.slot)] = std::move(queue_.front());
    queue_.pop_front();
    order_.push_back(placement.slot);
    ++running_;
  }
}

void Engine::finish(int slot, Finish how) {
  auto generation = std::move(active_[static_cast<size_t>(slot)]);
  slots_[static_cast<size_t>(slot)].busy = false;
  std::erase(order_, slot);
  {
    const std::lock_guard lock(mutex_);
    --running_;
  }
  generation->channel->push({generation->choice, how});
}

void Engine::step() {
  for (const int slot : std::vector<int>(order_)) {
    std::unique_lock lock(mutex_);
    const Finish how = wish_to_end(*active_[static_cast<size_t>(slot)]);
    lock.unlock();
    if (how != Finish::kNone) finish(slot, how);
  }
  const std::vector<Piece> pieces = next_pieces();
  if (pieces.empty()) return;
  try {
    take_logits(pieces, session_.run_batch(pieces));
  } catch (const std::exception&) {
    fail_all();
  }
  metrics_.step();
}

// Everybody's next token, and equal shares of the rows that are left for the prompts. What one
// needs less than its share goes to those behind it.
std::vector<Piece> Engine::next_pieces() {
  std::vector<Piece> pieces;
  std::vector<int> reading;
  for (const int slot : order_) {
    Generation& g = *active_[static_cast<size_t>(slot)];
    if (g.is_reading()) {
      reading.push_back(slot);
    } else {
      pieces.push_back({slot, {&g.next, 1}});
    }
  }
  size_t rows = kRows - pieces.size();
  const auto need = [&](int slot) {
    const Generation& g = *active_[static_cast<size_t>(slot)];
    return g.request.prompt.size() - g.read;
  };
  std::stable_sort(reading.begin(), reading.end(), [&](int a, int b) { return need(a) < need(b); });
  for (size_t i = 0; i < reading.size(); ++i) {
    const Generation& g = *active_[static_cast<size_t>(reading[i])];
    const size_t share = std::min(need(reading[i]), rows / (reading.size() - i));
    if (share == 0) continue;
    pieces.push_back(
        {reading[i], std::span(g.request.prompt).subspan(g.read, share), g.says_prompt()});
    rows -= share;
  }
  return pieces;
}

void Engine::take_logits(const std::vector<Piece>& pieces, std::span<const int16_t> logits) {
  const auto vocab = static_cast<size_t>(vocab_size_);
  std::vector<Draw> draws;
  for (const Piece& piece : pieces) {
    const auto rows = logits.first(piece.rows() * vocab);
    logits = logits.subspan(rows.size());
    Generation& g = *active_[static_cast<size_t>(piece.sequence)];
    auto& cached = slots_[static_cast<size_t>(piece.sequence)].cached;
    cached.insert(cached.end(), piece.tokens.begin(), piece.tokens.end());
    if (g.is_reading()) {
      if (piece.all_rows) say_prompt(g, g.read, piece.tokens.size(), rows);
      g.read += piece.tokens.size();
      metrics_.prompt_tokens(static_cast<int64_t>(piece.tokens.size()), 0);
    }
    if (g.is_reading()) continue;
    if (g.generated == g.request.max_tokens) {  // 0: the prompt was all that is wanted
      finish(piece.sequence, Finish::kLength);
    } else {
      draws.push_back({piece.sequence, rows.last(vocab)});
    }
  }
  draw(draws);
  for (Draw& d : draws) advance(d.slot, std::move(d.output));
}

// By all threads: a row takes a tenth of a millisecond and more, and there may be one for each
// slot.
void Engine::draw(std::span<Draw> draws) {
  std::atomic<bool> is_short_of_memory = false;
  parallel_for(static_cast<int64_t>(draws.size()), [&](int64_t i, int) {
    try {
      auto& [slot, row, output] = draws[static_cast<size_t>(i)];
      Generation& g = *active_[static_cast<size_t>(slot)];
      output.token = g.sampler.sample(row, session_.logits_scale());
      if (g.request.top_logprobs) softmax_.describe(row, *g.request.top_logprobs, output);
    } catch (const std::exception&) {  // it must not leave a thread of the pool
      is_short_of_memory = true;
    }
  });
  if (is_short_of_memory) throw std::bad_alloc();
}

// Row i of [count, V] is for the token behind prompt[first + i].
void Engine::say_prompt(Generation& g, size_t first, size_t count, std::span<const int16_t> rows) {
  const std::vector<int32_t>& prompt = g.request.prompt;
  const auto vocab = static_cast<size_t>(vocab_size_);
  if (first == 0) g.channel->push({g.choice, Finish::kNone, {prompt[0], true}});
  for (size_t i = 0; i < count && first + i + 1 < prompt.size(); ++i) {
    TokenOutput output{prompt[first + i + 1], /*is_prompt=*/true};
    softmax_.describe(rows.subspan(i * vocab, vocab), *g.request.top_logprobs, output);
    g.channel->push({g.choice, Finish::kNone, std::move(output)});
  }
}

// The next token of a generation whose tokens are all in the cache, and its end if this is it.
void Engine::advance(int slot, TokenOutput output) {
  Generation& g = *active_[static_cast<size_t>(slot)];
  output.is_end = std::ranges::find(end_tokens_, output.token) != end_tokens_.end();
  if (g.generated == 0) {
    metrics_.first_token(seconds_since(g.submitted));
  }
  metrics_.generated_tokens(1);
  ++g.generated;
  g.next = output.token;
  const bool is_end = output.is_end;
  g.channel->push({g.choice, Finish::kNone, std::move(output)});
  if (is_end) return finish(slot, Finish::kStop);
  const bool is_full = session_.position(slot) == session_.context();
  if (is_full || g.generated == g.request.max_tokens) finish(slot, Finish::kLength);
}

// A walk that could not be done, for which no input is known: nobody's cache can be trusted.
void Engine::fail_all() {
  for (const int slot : std::vector<int>(order_)) finish(slot, Finish::kFailed);
  for (size_t i = 0; i < slots_.size(); ++i) {
    session_.reset(static_cast<int>(i));
    slots_[i].cached.clear();
  }
}

}  // namespace qnpu::server
