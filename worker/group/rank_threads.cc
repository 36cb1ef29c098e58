#include "worker/group/rank_threads.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <new>
#include <thread>
#include <utility>

namespace dsm::group {
namespace {

constexpr const char* kLoadFailed = "LoadFailed";
constexpr const char* kDeviceError = "DeviceError";

using BatchPtr = std::shared_ptr<const engine::Batch>;

}  // namespace

struct RankThreads::Impl {
  // One rank's thread. All but `thread` under `mutex`.
  struct Rank {
    RankState state;
    std::deque<BatchPtr> queue;
    std::uint64_t inside = 0;             // the epoch whose communicator the thread uses; 0: none
    std::optional<TimePoint> over_since;  // that epoch was aborted and the thread is not back yet
    const RankExecutor* executor = nullptr;  // null: its weights are not there
    bool asleep = false;
    std::thread thread;
  };

  // A piece of work for a rank's thread: connect in a new epoch, the next batch of its own, fall
  // asleep or wake; or let go of an epoch that is over.
  struct Work {
    std::uint64_t epoch = 0;
    std::shared_ptr<EpochComms> connect;
    BatchPtr batch;
    int kv_blocks = 0;
    std::optional<bool> sleep = {};
  };

  Impl(int first_rank, int count, RankLoader l, Clock& c, Logger lg, Events e)
      : loader(std::move(l)), clock(c), log(std::move(lg)), events(std::move(e)) {
    ranks.resize(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) {
      ranks[at(i)].state.rank = first_rank + i;
      ranks[at(i)].state.phase = Phase::kLoading;
    }
    for (int i = 0; i < count; ++i) {
      ranks[at(i)].thread = std::thread([this, i] { run(i); });
    }
  }

  ~Impl() {
    abort();
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    wake.notify_all();
    for (Rank& rank : ranks) {
      rank.thread.join();
    }
  }

  // --- a rank's thread ---

  void run(int i) {
    const auto executor = load(i);
    if (!executor) {
      return;
    }
    show(i, executor.get());
    work_off(i, *executor);
    show(i, nullptr);
  }

  void show(int i, const RankExecutor* executor) {
    const std::lock_guard lock(mutex);
    ranks[at(i)].executor = executor;
  }

  // Until the process stops, or the device fails.
  void work_off(int i, RankExecutor& executor) {
    std::shared_ptr<EpochComms> held;
    comm::Communicator* comm = nullptr;
    std::uint64_t seen = 0;  // the last epoch of this thread
    while (const auto work = next_work(i, seen)) {
      seen = work->epoch;
      try {
        if (work->connect) {
          comm = nullptr;
          held = work->connect;
          if (work->kv_blocks > 0) make_cache(i, executor, work->kv_blocks);
          comm = &held->open(i);
          executor.join(*comm);
          joined(i, seen);
        } else if (work->sleep) {
          comm = nullptr;
          held.reset();
          change_sleep(i, executor, *work->sleep);
        } else if (work->batch && comm == nullptr) {
          continue;  // this rank has failed in this epoch and said so
        } else if (work->batch) {
          engine::Samples samples = executor.execute(*work->batch, *comm);
          if (comm->rank() == 0) {
            events.samples(seen, std::move(samples));
          }
        } else {
          comm = nullptr;
          held.reset();  // the epoch is over
        }
      } catch (const comm::CommError& e) {
        comm = nullptr;
        failed(i, seen, {.kind = ErrorKind::kTransient, .message = e.what()});
      } catch (const DeviceError& e) {
        device_failed(i, seen, e.what());
        return;
      } catch (const std::exception& e) {
        comm = nullptr;
        failed(i, seen, {.kind = ErrorKind::kInternal, .message = e.what()});
      }
    }
  }

  std::unique_ptr<RankExecutor> load(int i) {
    Rank& rank = ranks[at(i)];
    const TimePoint start = clock.now();
    auto executor = guarded_load(rank);
    {
      const std::lock_guard lock(mutex);
      if (executor && rank.state.phase != Phase::kFailed) {
        rank.state.phase = Phase::kRendezvous;
        rank.state.loaded_bytes = rank.state.total_bytes;
        rank.state.kv_room = (*executor)->kv_room();
      } else if (!executor) {
        rank.state.phase = Phase::kFailed;
        rank.state.reason =
            executor.error().kind == ErrorKind::kExhausted ? kDeviceError : kLoadFailed;
        rank.state.error = executor.error().message;
      }
    }
    if (!executor) {
      log.info("weights not loaded",
               {{"rank", rank.state.rank}, {"error", executor.error().message}});
      events.changed();
      return nullptr;
    }
    log.info("weights loaded",
             {{"rank", rank.state.rank},
              {"bytes", rank.state.total_bytes},
              {"ms", std::chrono::duration_cast<Millis>(clock.now() - start).count()}});
    events.changed();
    return std::move(*executor);
  }

  Result<std::unique_ptr<RankExecutor>> guarded_load(Rank& rank) {
    try {
      return loader(rank.state.rank, [&](std::uint64_t loaded, std::uint64_t total) {
        {
          const std::lock_guard lock(mutex);
          rank.state.loaded_bytes = loaded;
          rank.state.total_bytes = total;
        }
        events.changed();
      });
    } catch (const std::bad_alloc&) {
      return fail(ErrorKind::kExhausted, "loading the weights: not enough memory");
    } catch (const DeviceError& e) {
      return fail(ErrorKind::kExhausted, std::string("loading the weights: ") + e.what());
    } catch (const std::exception& e) {
      return fail(ErrorKind::kInternal, std::string("loading the weights: ") + e.what());
    }
  }

  // Waits for something to do after `seen` was the last epoch. nullopt: the process stops.
  std::optional<Work> next_work(int i, std::uint64_t seen) {
    std::unique_lock lock(mutex);
    Rank& rank = ranks[at(i)];
    for (;;) {
      rank.over_since.reset();
      if (stopping) {
        return std::nullopt;
      }
      if (rank.asleep != sleep_wanted && (!comms || epoch != seen)) {
        rank.inside = 0;
        return Work{.epoch = seen, .connect = nullptr, .batch = nullptr, .sleep = sleep_wanted};
      }
      if (comms && epoch != seen) {
        rank.inside = epoch;
        return Work{.epoch = epoch, .connect = comms, .batch = nullptr, .kv_blocks = kv_blocks};
      }
      if (comms && rank.inside == epoch && !rank.queue.empty()) {
        BatchPtr batch = std::move(rank.queue.front());
        rank.queue.pop_front();
        return Work{.epoch = epoch, .connect = nullptr, .batch = std::move(batch)};
      }
      if (!comms && rank.inside != 0) {
        rank.inside = 0;
        return Work{.epoch = seen, .connect = nullptr, .batch = nullptr};
      }
      wake.wait(lock);
    }
  }

  void change_sleep(int i, RankExecutor& executor, bool asleep) {
    const TimePoint start = clock.now();
    if (!asleep) {
      const std::lock_guard lock(mutex);
      RankState& state = ranks[at(i)].state;
      if (state.phase == Phase::kAsleep) state.phase = Phase::kWaking;
    }
    events.changed();
    asleep ? executor.sleep() : executor.wake();
    {
      const std::lock_guard lock(mutex);
      Rank& rank = ranks[at(i)];
      rank.asleep = asleep;
      if (rank.state.phase != Phase::kFailed) {
        rank.state.phase = asleep ? Phase::kAsleep : Phase::kRendezvous;
      }
      log.info(asleep ? "rank sleeps" : "rank is awake",
               {{"rank", rank.state.rank},
                {"ms", std::chrono::duration_cast<Millis>(clock.now() - start).count()}});
    }
    events.changed();
  }

  // From here on there is room for no more.
  void make_cache(int i, RankExecutor& executor, int blocks) {
    executor.make_cache(blocks);
    const std::lock_guard lock(mutex);
    ranks[at(i)].state.kv_room = executor.kv_room();
  }

  void joined(int i, std::uint64_t in_epoch) {
    {
      const std::lock_guard lock(mutex);
      if (!comms || epoch != in_epoch || ranks[at(i)].state.phase == Phase::kFailed) {
        return;
      }
      ranks[at(i)].state.phase = Phase::kReady;
      if (++joined_count < ranks.size()) {
        return;
      }
    }
    events.changed();
    events.joined(in_epoch);
  }

  void failed(int i, std::uint64_t in_epoch, Error error) {
    {
      const std::lock_guard lock(mutex);
      Rank& rank = ranks[at(i)];
      rank.queue.clear();
      if (!comms || epoch != in_epoch) {
        return;  // it was aborted; what follows from that is no news
      }
      rank.state.error = error.message;
    }
    events.broken(in_epoch, std::move(error));
  }

  // The end of the rank's thread. To the others it is as if the process were lost.
  void device_failed(int i, std::uint64_t in_epoch, const std::string& why) {
    {
      const std::lock_guard lock(mutex);
      Rank& rank = ranks[at(i)];
      rank.queue.clear();
      rank.inside = 0;
      rank.over_since.reset();
      rank.state.phase = Phase::kFailed;
      rank.state.reason = kDeviceError;
      rank.state.error = why;
      log.info("device failed", {{"rank", rank.state.rank}, {"error", why}});
    }
    events.changed();
    events.broken(in_epoch, {.kind = ErrorKind::kTransient, .message = "device error: " + why});
  }

  // --- any thread ---

  // The rank's thread may be in a call that does not return any more, so it is left as it is.
  void device_is(int rank_number, health::DeviceHealth health) {
    const bool fatal = health.level == health::Level::kFatal;
    std::uint64_t in_epoch = 0;
    bool lost = false;
    const std::string why = health.message;
    {
      const std::lock_guard lock(mutex);
      const auto rank =
          std::ranges::find_if(ranks, [&](const Rank& r) { return r.state.rank == rank_number; });
      if (rank == ranks.end()) return;
      rank->state.device = std::move(health);
      lost = fatal && rank->state.phase != Phase::kFailed;
      if (lost) {
        rank->queue.clear();
        rank->state.phase = Phase::kFailed;
        rank->state.reason = kDeviceError;
        rank->state.error = why;
        log.info("device failed", {{"rank", rank_number}, {"error", why}});
      }
      in_epoch = epoch;
    }
    events.changed();
    if (lost) {
      events.broken(in_epoch, {.kind = ErrorKind::kTransient, .message = "device error: " + why});
    }
  }

  void abort() {
    std::shared_ptr<EpochComms> over;
    {
      const std::lock_guard lock(mutex);
      over = std::exchange(comms, nullptr);
      if (!over) {
        return;
      }
      joined_count = 0;
      for (Rank& rank : ranks) {
        rank.queue.clear();
        if (rank.inside != 0 && !rank.over_since) {
          rank.over_since = clock.now();
        }
        if (rank.state.phase == Phase::kReady) {
          rank.state.phase = Phase::kRendezvous;
        }
      }
    }
    over->abort();
    wake.notify_all();
    events.changed();
  }

  static std::size_t at(int i) { return static_cast<std::size_t>(i); }

  const RankLoader loader;
  Clock& clock;
  const Logger log;
  const Events events;

  mutable std::mutex mutex;
  std::condition_variable wake;
  std::vector<Rank> ranks;
  std::shared_ptr<EpochComms> comms;  // of the epoch under way, if there is one
  std::uint64_t epoch = 0;            // under way or the last
  int kv_blocks = 0;                  // for its caches
  bool sleep_wanted = false;
  std::size_t joined_count = 0;
  bool stopping = false;
};

RankThreads::RankThreads(int first_rank, int count, RankLoader loader, Clock& clock, Logger log,
                         Events events)
    : impl_(std::make_unique<Impl>(first_rank, count, std::move(loader), clock, std::move(log),
                                   std::move(events))) {}

RankThreads::~RankThreads() = default;

void RankThreads::start(std::uint64_t epoch, std::shared_ptr<EpochComms> comms, int kv_blocks) {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->kv_blocks = kv_blocks;
    impl_->comms = std::move(comms);
    impl_->epoch = epoch;
    impl_->joined_count = 0;
    for (Impl::Rank& rank : impl_->ranks) {
      if (rank.state.phase != Phase::kFailed) rank.state.error.clear();
    }
  }
  impl_->wake.notify_all();
}

void RankThreads::submit(std::uint64_t epoch, const BatchPtr& batch) {
  {
    const std::lock_guard lock(impl_->mutex);
    if (!impl_->comms || impl_->epoch != epoch) {
      return;
    }
    for (Impl::Rank& rank : impl_->ranks) {
      rank.queue.push_back(batch);
    }
  }
  impl_->wake.notify_all();
}

void RankThreads::abort() {
  impl_->abort();
}

void RankThreads::rest(Rest rest) {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->sleep_wanted = rest == Rest::kAsleep;
  }
  impl_->wake.notify_all();
}

void RankThreads::device_is(int rank, health::DeviceHealth health) {
  impl_->device_is(rank, std::move(health));
}

std::vector<RankState> RankThreads::states() const {
  const std::lock_guard lock(impl_->mutex);
  std::vector<RankState> states;
  for (const Impl::Rank& rank : impl_->ranks) {
    states.push_back(rank.state);
  }
  return states;
}

bool RankThreads::loaded() const {
  const std::lock_guard lock(impl_->mutex);
  for (const Impl::Rank& rank : impl_->ranks) {
    if (rank.state.phase == Phase::kLoading || rank.state.phase == Phase::kFailed) {
      return false;
    }
  }
  return true;
}

std::uint64_t RankThreads::moves() const {
  const std::lock_guard lock(impl_->mutex);
  std::uint64_t moves = 0;
  for (const Impl::Rank& rank : impl_->ranks) {
    if (rank.executor != nullptr) moves += rank.executor->moves();
  }
  return moves;
}

bool RankThreads::asleep() const {
  const std::lock_guard lock(impl_->mutex);
  return std::ranges::any_of(impl_->ranks, &Impl::Rank::asleep);
}

std::chrono::nanoseconds RankThreads::stuck_for() const {
  const std::lock_guard lock(impl_->mutex);
  std::chrono::nanoseconds longest(0);
  for (const Impl::Rank& rank : impl_->ranks) {
    if (rank.over_since) {
      longest = std::max<std::chrono::nanoseconds>(longest, impl_->clock.now() - *rank.over_since);
    }
  }
  return longest;
}

}  // namespace dsm::group
