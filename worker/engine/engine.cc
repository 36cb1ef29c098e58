#include "worker/engine/engine.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>

#include "worker/engine/invariant.h"
#include "worker/engine/start_rate.h"

namespace dsm::engine {
namespace {

// How long the loop waits in one place before it shows that it is alive and looks for a shutdown.
constexpr Millis kRound{100};

struct Accepted {
  SequenceId id;
  GenerateRequest request;
  TokenSink sink;
  TimePoint arrived;
};

// Of a sequence that the scheduler has.
struct Client {
  TokenSink sink;
  SequenceTimes times;
};

}  // namespace

struct Engine::Impl {
  Impl(const SchedulerConfig& config, Runner& r, Clock& c, Logger l, std::optional<Probe> p)
      : scheduler(config), runner(r), clock(c), log(std::move(l)), probe(std::move(p)) {
    shared.stats.kv_blocks_total = config.num_blocks * config.kv_caches;
    round_at = clock.now();
    thread = std::thread([this] { loop(); });
  }

  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      shared.stopping = true;
    }
    wake.notify_all();
    thread.join();
  }

  // --- engine thread ---

  void loop() {
    while (take_inbox()) {
      round();
      publish();
    }
    for (auto& [id, client] : std::exchange(clients, {})) {
      client.sink(
          {.tokens = {}, .finished = FinishReason::kCancelled, .error = {}, .times = client.times});
    }
  }

  // Waits for something to do when there is no work, and takes it. False when the engine is to
  // stop.
  bool take_inbox() {
    {
      std::unique_lock lock(mutex);
      const TimePoint deadline = clock.now() + kRound;
      while ((serving || asleep) && scheduler.idle() && shared.inbox.empty() &&
             shared.cancels.empty() && shared.sleep.has_value() == asleep && !shared.stopping &&
             clock.now() < deadline) {
        clock.wait_until(wake, lock, deadline);
      }
    }
    return take_news();
  }

  // Moves what was submitted and cancelled to the scheduler, and ends what is out of time. Also
  // while a step is under way: what waits does not have to wait for that. False when the engine is
  // to stop.
  bool take_news() {
    std::vector<Accepted> inbox;
    std::vector<SequenceId> cancels;
    bool stopping = false;
    {
      const std::lock_guard lock(mutex);
      inbox.swap(shared.inbox);
      cancels.swap(shared.cancels);
      shared.stats.waiting += static_cast<int>(inbox.size());
      if (!inbox.empty() && !shared.stats.oldest_arrival) {
        shared.stats.oldest_arrival = inbox.front().arrived;
      }
      shared.stats.waiting_tokens += std::exchange(shared.inbox_tokens, 0);
      stopping = shared.stopping;
      wanted_sleep = shared.sleep;
    }
    round_at = clock.now();
    for (Accepted& a : inbox) {
      clients.emplace(a.id, Client{.sink = std::move(a.sink), .times = {.submitted = a.arrived}});
      scheduler.submit(a.id, std::move(a.request), a.arrived);
    }
    for (const SequenceId id : cancels) {
      if (auto output = scheduler.cancel(id)) deliver(std::move(*output), std::nullopt);
    }
    for (Output& output : scheduler.expire(clock.now())) deliver(std::move(output), std::nullopt);
    return !stopping;
  }

  void round() {
    follow_sleep();
    if (asleep) return;
    if (!serving) {
      const bool formed = runner.recover(clock.now() + kRound);
      round_at = clock.now();
      serving = formed && passes_probe();
      if (serving) {
        log.info("engine serves");
      }
    } else if (scheduler.idle()) {
      // Nothing is in flight: this only asks whether the group is still whole.
      if (const auto health = runner.poll(clock.now()); !health) {
        lost(health.error());
      }
    } else {
      step();
    }
  }

  // Between steps.
  void follow_sleep() {
    if (wanted_sleep == SleepMode::kAbort && !scheduler.idle()) end_all(engine::asleep());
    const bool now = wanted_sleep.has_value() && scheduler.idle();
    if (now == asleep) return;
    asleep = now;
    log.info(asleep ? "engine sleeps" : "engine wakes");
    runner.sleep(asleep);
    serving = false;
    scheduler.requeue_all();  // nothing is there but the prefix cache, whose blocks are lost
  }

  void end_all(const Error& why) {
    std::vector<SequenceId> ids;
    ids.reserve(clients.size());
    for (const auto& [id, client] : clients) ids.push_back(id);
    for (const SequenceId id : ids) {
      auto output = scheduler.cancel(id);
      if (!output) continue;
      output->finished = FinishReason::kError;
      deliver(std::move(*output), why);
    }
  }

  void step() {
    const TimePoint begin = clock.now();
    Batch batch = scheduler.schedule(begin);
    for (const Row& row : batch.rows) {
      std::optional<TimePoint>& started = clients.at(row.sequence).times.started;
      if (!started) started = begin;
    }
    const std::size_t tokens = batch.token_count();
    auto samples = compute(std::move(batch));
    if (!samples) {
      lost(samples.error());
    } else if (std::optional<Samples>& done = *samples) {
      ++steps;
      step_tokens.add(static_cast<double>(tokens));
      for (Output& output : scheduler.commit(std::move(*done))) {
        deliver(std::move(output), std::nullopt);
      }
    }
  }

  // Waits for a step of the ranks. nullopt: the engine is to stop.
  Result<std::optional<Samples>> compute(Batch batch) {
    if (const Status submitted = runner.submit(std::move(batch)); !submitted) {
      return std::unexpected(submitted.error());
    }
    while (take_news()) {
      auto samples = runner.poll(clock.now() + kRound);
      round_at = clock.now();
      if (!samples || *samples) return samples;
    }
    return std::nullopt;
  }

  // Asks the ranks, which have just met, the probe. A group that is lost meanwhile is asked again
  // when it has met again; one that answers wrongly, or cannot compute it, is condemned.
  bool passes_probe() {
    if (!probe) return true;
    invariant(scheduler.stats().blocks_used == 0, "nobody holds KV blocks when an epoch starts");
    for (int rank = 0; rank < scheduler.config().kv_caches; ++rank) {
      if (!passes_probe(rank)) return false;
    }
    return true;
  }

  // With the KV cache of this rank; the answer is the same with each.
  bool passes_probe(int rank) {
    ProbeRun run(*probe, scheduler.config().max_batch_tokens, rank);
    Status right;
    while (const auto batch = run.next()) {
      const auto samples = compute(*batch);
      if (!samples && samples.error().kind == ErrorKind::kTransient) {
        lost(samples.error());
        return false;
      }
      if (!samples) {
        right = wrap(samples.error(), "the probe failed");
      } else if (const std::optional<Samples>& done = *samples) {
        right = run.take(*done);
      } else {
        return false;
      }
      if (!right) break;
    }
    if (right) right = run.compare_expected();
    if (right) right = run.compare_first(first_answer);
    if (!right) {
      last_error = right.error().message;
      if (scheduler.config().kv_caches > 1) {
        last_error = "rank " + std::to_string(rank) + ": " + last_error;
      }
      log.info("group condemned", {{"error", last_error}});
      runner.condemn(last_error);
      return false;
    }
    if (first_answer.empty()) first_answer = run.answer();
    return true;
  }

  void lost(const Error& error) {
    serving = false;
    last_error = error.message;
    const bool can_retry = error.kind == ErrorKind::kTransient;
    log.info(can_retry ? "group lost, running sequences are recomputed" : "step failed",
             {{"error", error.message}, {"running", scheduler.stats().running}});
    for (Output& output : can_retry ? scheduler.requeue_all() : scheduler.fail_step()) {
      deliver(std::move(output), error);
    }
  }

  // `error`: what befell the step, when one did.
  void deliver(Output output, const std::optional<Error>& error) {
    const auto it = clients.find(output.sequence);
    invariant(it != clients.end(), "each sequence has a sink until it finished");
    SequenceTimes& times = it->second.times;
    if (!output.tokens.empty()) {
      times.last_token = clock.now();
      if (!times.first_token) times.first_token = times.last_token;
    }
    TokenEvent event;
    event.tokens = std::move(output.tokens);
    event.logprobs = std::move(output.logprobs);
    event.prompt_logprobs = std::move(output.prompt_logprobs);
    event.finished = output.finished;
    if (output.finished == FinishReason::kError) {
      event.error = output.error ? output.error : error;
    }
    event.cached_prompt_tokens = output.cached_prompt_tokens;
    event.times = times;
    if (!output.finished) {
      it->second.sink(event);
      return;
    }
    const TokenSink sink = std::move(it->second.sink);
    clients.erase(it);
    sink(event);
  }

  void publish() {
    SchedulerStats s = scheduler.stats();
    const std::lock_guard lock(mutex);
    shared.rate.observe(clock.now(), s.started, s.prompt_tokens);
    EngineStats& stats = shared.stats;
    stats.waiting = s.waiting;
    stats.waiting_tokens = s.waiting_tokens;
    stats.oldest_arrival = s.oldest_arrival;
    stats.speculation = s.speculation;
    stats.running = s.running;
    stats.waiting_adapters = std::move(s.waiting_adapters);
    stats.running_adapters = std::move(s.running_adapters);
    stats.kv_blocks_used = s.blocks_used;
    stats.kv_slots_empty = s.slots_empty;
    stats.prompt_tokens = s.prompt_tokens;
    stats.generation_tokens = s.generation_tokens;
    stats.preemptions = s.preemptions;
    stats.prefix_hit_tokens = s.prefix_hit_tokens;
    stats.prefix_query_tokens = s.prefix_query_tokens;
    stats.steps = steps;
    stats.step_tokens = step_tokens;
    stats.block_times = s.block_times;
    stats.serving = serving;
    stats.last_error = last_error;
  }

  // --- any thread, with `mutex` held ---

  // Why the queue does not take the request.
  std::optional<Error> queue_refuses(const GenerateRequest& request) const {
    const SchedulerConfig& config = scheduler.config();
    const std::size_t waiting =
        static_cast<std::size_t>(shared.stats.waiting) + shared.inbox.size();
    if (waiting >= static_cast<std::size_t>(config.max_waiting)) {
      return Error{
          .kind = ErrorKind::kExhausted,
          .message = "the queue is full: " + std::to_string(waiting) + " requests are waiting",
          .retry_after_s = shared.rate.seconds_for_requests(1),
          .reason = "queue_full"};
    }
    const std::int64_t tokens = shared.stats.waiting_tokens + shared.inbox_tokens;
    const std::int64_t more = tokens + std::ssize(request.prompt) - config.max_waiting_tokens;
    // An empty queue takes any one request: otherwise a long one could never run.
    if (config.max_waiting_tokens > 0 && waiting > 0 && more > 0) {
      return Error{.kind = ErrorKind::kExhausted,
                   .message = "the queue is full: " + std::to_string(tokens) +
                              " tokens are waiting, with this prompt's " +
                              std::to_string(request.prompt.size()) + " they would be more than " +
                              std::to_string(config.max_waiting_tokens),
                   .retry_after_s = shared.rate.seconds_for_tokens(
                       static_cast<std::uint64_t>(std::min(more, tokens))),
                   .reason = "queue_tokens"};
    }
    return std::nullopt;
  }

  // --- engine thread only ---
  Scheduler scheduler;
  Runner& runner;
  Clock& clock;
  Logger log;
  const std::optional<Probe> probe;
  std::vector<PositionLogprobs> first_answer;  // to the probe; empty: there was none yet
  std::unordered_map<SequenceId, Client> clients;
  bool serving = false;
  bool asleep = false;  // the runner was told so last
  std::optional<SleepMode> wanted_sleep;
  std::uint64_t steps = 0;
  Distribution<kStepTokens> step_tokens;
  std::string last_error;

  // --- any thread ---
  mutable std::mutex mutex;
  std::condition_variable wake;
  struct Shared {  // under `mutex`
    std::vector<Accepted> inbox;
    std::int64_t inbox_tokens = 0;
    std::vector<SequenceId> cancels;
    std::optional<SleepMode> sleep;  // what is wanted; absent: to be awake
    SequenceId next_id = 1;
    bool stopping = false;
    EngineStats stats;
    StartRate rate;
  } shared;
  std::atomic<TimePoint> round_at;
  std::thread thread;  // last: it uses all of the above
};

Engine::Engine(const SchedulerConfig& config, Runner& runner, Clock& clock, Logger log,
               std::optional<Probe> probe)
    : impl_(std::make_unique<Impl>(config, runner, clock, std::move(log), std::move(probe))) {}

Engine::~Engine() = default;

Result<SequenceId> Engine::submit(GenerateRequest request, TokenSink sink) {
  Impl& impl = *impl_;
  const SchedulerConfig& config = impl.scheduler.config();
  if (const Status status = admissible(config, request); !status) {
    return std::unexpected(status.error());
  }
  SequenceId id = 0;
  {
    const std::lock_guard lock(impl.mutex);
    if (impl.shared.stopping) {
      return fail(ErrorKind::kCancelled, "the engine is shutting down");
    }
    if (impl.shared.sleep) return std::unexpected(asleep());
    if (auto refused = impl.queue_refuses(request)) return std::unexpected(std::move(*refused));
    id = impl.shared.next_id++;
    impl.shared.inbox_tokens += std::ssize(request.prompt);
    impl.shared.inbox.push_back({.id = id,
                                 .request = std::move(request),
                                 .sink = std::move(sink),
                                 .arrived = impl.clock.now()});
  }
  impl.wake.notify_all();
  return id;
}

void Engine::cancel(SequenceId id) {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->shared.cancels.push_back(id);
  }
  impl_->wake.notify_all();
}

void Engine::sleep(SleepMode mode) {
  {
    const std::lock_guard lock(impl_->mutex);
    if (impl_->shared.sleep != SleepMode::kAbort) impl_->shared.sleep = mode;
  }
  impl_->wake.notify_all();
}

void Engine::wake() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->shared.sleep.reset();
  }
  impl_->wake.notify_all();
}

EngineStats Engine::stats() const {
  const std::lock_guard lock(impl_->mutex);
  EngineStats stats = impl_->shared.stats;
  stats.sleeps = impl_->shared.sleep.has_value();
  stats.waiting += static_cast<int>(impl_->shared.inbox.size());
  stats.waiting_tokens += impl_->shared.inbox_tokens;
  // What is in the inbox came after everything that the scheduler has.
  if (!stats.oldest_arrival && !impl_->shared.inbox.empty()) {
    stats.oldest_arrival = impl_->shared.inbox.front().arrived;
  }
  return stats;
}

TimePoint Engine::last_round() const {
  return impl_->round_at;
}

}  // namespace dsm::engine
