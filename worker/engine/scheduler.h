// Decides what each step computes: continuous batching with chunked prefill over paged KV blocks.
//
// Sequences are served strictly in the order of submission: `running` holds the oldest, `waiting`
// the rest. A step first gives every running sequence its next tokens (one when decoding, a chunk
// when its prompt is not in the cache yet), then admits from the front of the queue while there is
// budget. When blocks run out, the youngest running sequence is preempted: its blocks are freed and
// it goes back to the front of the queue with the tokens it has, to be recomputed. The oldest can
// always take what it needs, so everything ends.
//
//   schedule() -> Batch         (an empty batch: nothing to do)
//   commit(Samples) -> what each sequence received, or
//   requeue_all() / fail_step() when the step was lost
//
// Pure: no clock, no I/O. Deterministic: the same calls give the same batches. Not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "worker/engine/batch.h"
#include "worker/engine/block_pool.h"
#include "worker/engine/prefix_cache.h"
#include "worker/engine/request.h"

namespace dsm::engine {

struct SchedulerConfig {
  int max_num_seqs = 16;       // sequences in one step
  int max_batch_tokens = 512;  // tokens in one step
  int max_model_len = 2048;    // prompt and generated tokens of one sequence
  int num_blocks = 512;        // KV blocks of kBlockTokens
  bool prefix_caching = true;
  int max_waiting = 1024;  // accepted and not running; more are refused

  // Tokens that one sequence can have: the model's limit or what the whole cache holds.
  int context_limit() const;
};

// kInvalid when a configuration cannot work, with the numbers.
Status validate(const SchedulerConfig& config);
// kInvalid when the request could never run under this configuration, with the numbers.
Status admissible(const SchedulerConfig& config, const GenerateRequest& request);

// What a sequence received. With `finished` it is the last and the id is forgotten.
struct Output {
  SequenceId sequence = 0;
  std::optional<TokenId> token;
  std::optional<FinishReason> finished;
  std::int32_t cached_prompt_tokens = 0;
};

struct SchedulerStats {
  int waiting = 0;
  int running = 0;
  int blocks_used = 0;
  std::uint64_t prompt_tokens = 0;      // computed or found in the cache, once per request
  std::uint64_t generation_tokens = 0;  // handed out
  std::uint64_t preemptions = 0;
  std::uint64_t prefix_hit_tokens = 0;
  std::uint64_t prefix_query_tokens = 0;
};

class Scheduler {
 public:
  // A sequence that was in a step of this many lost groups without a new token in between ends with
  // kError: it may be what breaks them.
  static constexpr int kMaxLosses = 5;

  explicit Scheduler(const SchedulerConfig& config);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // `id` is larger than any before; the request is admissible().
  void submit(SequenceId id, GenerateRequest request);
  // Ends the sequence. One that is in the step under way ends with that step's commit(), any other
  // now (then its last output is returned). Unknown ids are ignored.
  std::optional<Output> cancel(SequenceId id);

  Batch schedule();
  // `samples` are the answer to the batch of the last schedule().
  std::vector<Output> commit(const Samples& samples);

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
  struct Sequence;
  struct PlannedRow {
    Sequence* sequence;
    int tokens;
    bool wants_sample;
  };
  struct InFlight {
    StepId id = 0;
    std::vector<PlannedRow> rows;
  };

  bool reserve(Sequence& s, int positions);
  void preempt_youngest();
  bool admit_next();
  void plan_row(Sequence& s, int tokens, InFlight& step, Batch& batch);
  void cache_full_blocks(Sequence& s);
  std::optional<FinishReason> append(Sequence& s, TokenId token, Output& output);
  void back_to_queue(Sequence& s);
  Output finish(Sequence& s, FinishReason reason);
  void remove_finished();

  SchedulerConfig config_;
  BlockPool pool_;
  PrefixCache cache_;
  std::unordered_map<SequenceId, std::unique_ptr<Sequence>> sequences_;
  std::deque<Sequence*> waiting_;     // oldest first; all younger than running_'s
  std::vector<Sequence*> running_;    // oldest first; hold blocks
  std::vector<SequenceId> finished_;  // to be removed before the call that ended them returns
  std::optional<InFlight> in_flight_;
  StepId next_step_ = 1;
  SequenceId last_id_ = 0;
  SchedulerStats totals_;
};

}  // namespace dsm::engine
