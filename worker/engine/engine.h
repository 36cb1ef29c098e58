// The engine: one thread that schedules, runs steps and hands tokens out. submit(), cancel(),
// stats() and last_round() may be called from any thread and do not wait for a step. Sinks are
// called on the engine thread and must be quick, not throw, and not call back into the engine
// except cancel().
//
// With a probe (probe.h), the ranks answer it whenever they have met, before the engine serves.
// Where the answer is wrong the runner is condemned, and nothing runs any more.
//
// An engine that is told to sleep (sleep.h) ends the epoch when it has no requests left, and an
// engine that is woken begins another: with an empty cache, and after the probe.
//
// When the runner loses its group, running sequences go back to the queue and are recomputed after
// the ranks have met again: their sinks see a pause. When a step fails in another way, its
// sequences end with kError. A request whose deadline passes ends with kDeadline, waiting or
// running, within a round of the loop (100 ms) or with the step that it is in. `runner` and `clock`
// outlive the engine; `config` is validate()d.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "base/result.h"
#include "worker/engine/batch.h"
#include "worker/engine/probe.h"
#include "worker/engine/request.h"
#include "worker/engine/runner.h"
#include "worker/engine/scheduler.h"
#include "worker/engine/sleep.h"

namespace dsm::engine {

// When a sequence came how far, on the engine's clock, as the engine's thread saw it.
struct SequenceTimes {
  TimePoint submitted;
  std::optional<TimePoint> started = {};      // its first step began; not again after a preemption
  std::optional<TimePoint> first_token = {};  // was handed out
  std::optional<TimePoint> last_token = {};   // up to now
};

// What a request's sink receives: zero or more tokens; the last event has `finished`.
struct TokenEvent {
  std::vector<TokenId> tokens;
  std::vector<PositionLogprobs> logprobs = {};         // one for each of `tokens` when asked for
  std::vector<PositionLogprobs> prompt_logprobs = {};  // once, with the first token, when asked for
  std::optional<FinishReason> finished;
  std::optional<Error> error;  // with kError
  std::int32_t cached_prompt_tokens = 0;
  SequenceTimes times = {};
};
using TokenSink = std::function<void(const TokenEvent&)>;

struct EngineStats {
  int waiting = 0;                               // accepted, not scheduled yet
  std::int64_t waiting_tokens = 0;               // of these
  std::optional<TimePoint> oldest_arrival = {};  // of these
  int running = 0;
  std::set<std::string> waiting_adapters = {};  // names
  std::set<std::string> running_adapters = {};
  int kv_blocks_used = 0;
  std::int64_t kv_slots_empty = 0;  // as SchedulerStats::slots_empty
  int kv_blocks_total = 0;
  std::uint64_t prompt_tokens = 0;      // since start
  std::uint64_t generation_tokens = 0;  // since start
  std::uint64_t preemptions = 0;
  std::uint64_t prefix_hit_tokens = 0;
  std::uint64_t prefix_query_tokens = 0;
  std::uint64_t steps = 0;
  Distribution<kStepTokens> step_tokens = {};  // computed in a step, drafts included
  SpeculationStats speculation = {};
  BlockTimes block_times = {};
  bool serving = false;  // the group is formed and has answered the probe
  bool sleeps = false;   // is told to; requests are refused
  std::string last_error;
};

class Engine {
 public:
  Engine(const SchedulerConfig& config, Runner& runner, Clock& clock, Logger log,
         std::optional<Probe> probe = {});
  ~Engine();  // stops; requests still in work end with kCancelled
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // kInvalid: too long for the context or the cache (message says the numbers); kExhausted: the
  // queue has max_waiting requests (reason queue_full) or would have more than max_waiting_tokens
  // (queue_tokens), with retry_after_s estimated from the rate at which requests were started
  // lately; kTransient: asleep(); kCancelled: shutting down.
  Result<SequenceId> submit(GenerateRequest request, TokenSink sink);
  // The sequence ends, waiting or running, when the step under way is over at the latest, and its
  // blocks are freed; unknown ids are ignored.
  void cancel(SequenceId id);
  // Sleep from now on, or no more. Returns at once. sleep(kAbort) hurries one that was told kWait.
  void sleep(SleepMode mode);
  void wake();
  EngineStats stats() const;
  // The time at which the loop last made a round: a health check compares it with now.
  TimePoint last_round() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dsm::engine
