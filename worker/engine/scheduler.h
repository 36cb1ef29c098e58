// Decides what each step computes: continuous batching with chunked prefill over paged KV blocks.
//
// Sequences are served strictly in one order: that of arrival, moved by their priority (see
// kPriorityWorth). `running` and `waiting` are each kept in it. A step first gives every running
// sequence its next tokens (one when decoding, a chunk when its prompt is not in the cache yet),
// then admits from the front of the queue while there is budget, and at last gives what is left to
// drafts: guesses never take a place, a block or a token of budget from anybody's text. When blocks
// run out, the last of the running sequences in the order (the least important, youngest) is
// preempted: its blocks are freed and it goes back to the queue with the tokens it has, to be
// recomputed. The first can always take what it needs, so everything ends.
//
// Where each rank has a KV cache of its own, a sequence is put into one when it is admitted
// (placement.h), and stays there until it ends or is preempted: only the last of the same cache
// makes room for it. The rows of a batch are in the order of their caches.
//
// A sequence at the front of the queue whose next full block is being computed by a running one
// waits for it and then shares it; so several answers to one prompt compute the prompt once.
//
//   schedule() -> Batch         (an empty batch: nothing to do)
//   commit(Samples) -> what each sequence received, or
//   requeue_all() / fail_step() when the step was lost
//
// Pure: no clock, no I/O; times are arguments. Deterministic: the same calls give the same batches.
// Not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "worker/engine/batch.h"
#include "worker/engine/kv_cache.h"
#include "worker/engine/placement.h"
#include "worker/engine/request.h"
#include "worker/engine/scheduler_config.h"

namespace dsm::engine {

struct Sequence;

// What a sequence received. With `finished` it is the last and the id is forgotten.
struct Output {
  SequenceId sequence = 0;
  std::vector<TokenId> tokens = {};
  std::vector<PositionLogprobs> logprobs = {};         // of `tokens`, when asked for
  std::vector<PositionLogprobs> prompt_logprobs = {};  // with the first output, when asked for
  std::optional<FinishReason> finished = {};
  std::optional<Error> error = {};  // with kError, where the sequence itself is to blame
  std::int32_t cached_prompt_tokens = 0;
};

// Of drafts that were verified.
struct SpeculationStats {
  std::uint64_t drafts = 0;                               // rows that had any
  std::uint64_t draft_tokens = 0;                         // in them
  std::uint64_t accepted_tokens = 0;                      // that were what was chosen
  std::vector<std::uint64_t> accepted_per_position = {};  // [speculation.tokens]

  bool operator==(const SpeculationStats&) const = default;
};

struct SchedulerStats {
  int waiting = 0;
  std::int64_t waiting_tokens = 0;               // prompt and generated ones of what waits
  std::optional<TimePoint> oldest_arrival = {};  // of what waits
  int running = 0;
  std::set<std::string> waiting_adapters = {};  // names
  std::set<std::string> running_adapters = {};
  int blocks_used = 0;                  // of all caches
  std::int64_t slots_empty = 0;         // in these, with room for a token that there is not yet
  std::uint64_t started = 0;            // requests that have left the queue
  std::uint64_t prompt_tokens = 0;      // computed or found in the cache, once per request
  std::uint64_t generation_tokens = 0;  // handed out
  std::uint64_t preemptions = 0;
  std::uint64_t prefix_hit_tokens = 0;
  std::uint64_t prefix_query_tokens = 0;
  SpeculationStats speculation = {};
  BlockTimes block_times = {};
};

class Scheduler {
 public:
  // A sequence that was in a step of this many lost groups without a new token in between ends with
  // kError: it may be what breaks them.
  static constexpr int kMaxLosses = 5;
  // Tokens of a step whose prompt's log probabilities are asked for: each has a row of logits.
  static constexpr int kScoredChunk = 64;

  explicit Scheduler(const SchedulerConfig& config);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // `id` is larger than any before; the request is admissible(). `arrived` does not go back.
  void submit(SequenceId id, GenerateRequest request, TimePoint arrived = {});
  // Ends the sequence. One that is in the step under way ends with that step's commit(), any other
  // now (then its last output is returned). Unknown ids are ignored.
  std::optional<Output> cancel(SequenceId id);
  // Ends the sequences whose deadline is not after `now`, as cancel() does.
  std::vector<Output> expire(TimePoint now);

  // `now` is for what is measured of blocks.
  Batch schedule(TimePoint now = {});
  // `samples` are the answer to the batch of the last schedule().
  std::vector<Output> commit(Samples samples);

  // The ranks lost the KV contents and the step under way, if any. Running sequences go back to the
  // queue with their tokens; returned are those that end.
  std::vector<Output> requeue_all();
  // The step under way failed for good: its sequences end with kError (cancelled ones with
  // kCancelled), others are requeued as above.
  std::vector<Output> fail_step();

  bool step_in_flight() const { return in_flight_.has_value(); }
  bool idle() const { return running_.empty() && waiting_.empty(); }
  SchedulerStats stats() const;
  const SchedulerConfig& config() const { return config_; }

  // Aborts when a block table, the order or the block counts are not what they must be. For tests.
  void check_invariants() const;

 private:
  void check_cache(int index) const;

  struct PlannedRow {
    Sequence* sequence = nullptr;
    int tokens = 0;  // without drafts
    int choices = 0;
    bool has_logits = false;
  };
  struct InFlight {
    StepId id = 0;
    std::vector<PlannedRow> rows;
  };

  // scheduler.cc: what the next step is
  int next_tokens(const Sequence& s, int budget) const;
  KvCache& cache_of(const Sequence& s);
  bool reserve(Sequence& s, int positions);
  Sequence& preempt_last(int cache);
  Sequence* admit_next();
  void admit(Sequence& s, int cache, const std::vector<BlockId>& found);
  void add_keys(Sequence& s) const;
  std::vector<BlockId> cached_prefix(const Sequence& s, const KvCache& cache) const;
  CacheOffer offer(const Sequence& s, int cache, const std::vector<BlockId>& found) const;
  int being_computed(const Sequence& s, int cache, int found) const;
  void add_drafts(const PlannedRow& row, int& budget);
  int proposals(const Sequence& s) const;
  void enqueue(Sequence& s);

  // scheduler_commit.cc: what came of it
  std::optional<Output> take(const PlannedRow& row, Sample* sample);
  std::optional<FinishReason> append(Sequence& s, TokenId token, Output& output);
  void count_drafts(std::size_t drafts, std::size_t accepted);
  void cache_full_blocks(Sequence& s);
  void back_to_queue(Sequence& s);
  std::optional<Output> end(Sequence& s, FinishReason reason);
  Output finish(Sequence& s, FinishReason reason);
  void remove_finished();

  SchedulerConfig config_;
  std::deque<KvCache> caches_;
  std::unordered_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  std::deque<Sequence*> waiting_;   // both in the order in which they are served
  std::vector<Sequence*> running_;  // these hold blocks
  std::set<std::pair<TimePoint, SequenceId>> deadlines_;
  std::vector<SequenceId> finished_;  // to be removed before the call that ended them returns
  std::optional<InFlight> in_flight_;
  StepId next_step_ = 1;
  SequenceId last_id_ = 0;
  TimePoint last_arrival_;
  SchedulerStats totals_;
};

}  // namespace dsm::engine
