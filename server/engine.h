// Continuous batching: one thread owns one Session, whose sequences are the slots. Every step of
// it runs the next token of each generation together with a share of the prompts that are still
// being read, so that a long prompt holds up nobody. What a generation gets does not depend on what
// runs beside it: logits are equal to the bit, and each has a random generator of its own.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "runtime/sampling.h"
#include "runtime/session.h"
#include "server/channel.h"
#include "server/logprobs.h"
#include "server/metrics.h"
#include "server/slots.h"

namespace qnpu::server {

struct GenerationRequest {
  std::vector<int32_t> prompt;  // at least one token, at most Engine::longest_prompt()
  int max_tokens = 16;          // the end token, if it comes, counts
  SamplingOptions sampling = {};
  bool prompt_logprobs = false;     // prompt tokens are said too, with logprobs if these are wished
  std::optional<int> top_logprobs;  // empty: no logprobs; else the number of likeliest tokens
  Clock::time_point deadline = Clock::time_point::max();
};

struct EngineOptions {
  int slots = 8;
  int context = 0;      // of each slot, as SessionOptions::context
  int threads = 0;      // 0: all cores
  int max_queue = 256;  // generations that wait for a slot, at most
  Isa isa = best_isa();
};

class Engine {
 public:
  // Error: as Session's, or more slots than a walk of the graph has rows.
  Engine(const std::shared_ptr<const Artifact>& artifact, const EngineOptions& options,
         Metrics& metrics);
  ~Engine();  // cancels everything

  int vocab_size() const { return vocab_size_; }
  int longest_prompt() const { return session_.context() - session_.prefix_length(); }
  int max_queue() const { return options_.max_queue; }

  // One generation for each choice of the channel, where they will say what they do. Slots are
  // given in the order of submission. False if the queue has no room for all of them. Error (of
  // GenerationRequest or SamplingOptions): a value outside its range; nothing is submitted then.
  bool submit(std::vector<GenerationRequest> requests, const std::shared_ptr<Channel>& channel);

  void cancel_all();
  bool is_idle() const;  // nothing runs or waits
  Gauges gauges() const;

 private:
  struct Generation;

  void check(const GenerationRequest& request) const;
  void work();
  void admit();
  void step();
  std::vector<Piece> next_pieces();
  struct Draw;

  void take_logits(const std::vector<Piece>& pieces, std::span<const int16_t> logits);
  void say_prompt(Generation& g, size_t first, size_t count, std::span<const int16_t> rows);
  void draw(std::span<Draw> draws);
  void advance(int slot, TokenOutput output);
  void fail_all();
  void finish(int slot, Finish how);
  Finish wish_to_end(const Generation& g) const;

  EngineOptions options_;
  Metrics& metrics_;
  Session session_;
  std::vector<int32_t> end_tokens_;
  int vocab_size_ = 0;
  LogSoftmax softmax_;

  mutable std::mutex mutex_;  // of what follows
  std::condition_variable wake_;
  std::deque<std::unique_ptr<Generation>> queue_;
  int running_ = 0;
  bool stopping_ = false;
  bool cancelling_ = false;

  // The thread's own.
  std::vector<Slot> slots_;
  std::vector<std::unique_ptr<Generation>> active_;  // by slot
  std::vector<int> order_;                           // busy slots, the longest served first
  uint64_t admitted_ = 0;

  std::thread thread_;
};

}  // namespace qnpu::server
