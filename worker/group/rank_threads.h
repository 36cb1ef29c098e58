// The ranks of this process: a thread each, which loads its weights once and then, epoch after
// epoch, connects and executes batches in the order in which they were submitted. Leader and
// followers use it alike; it knows no sockets and no roles.
//
// All methods may be called from any thread. Events are called on rank threads without a lock held;
// they may come late, for an epoch that is over: the receiver compares epochs.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "base/result.h"
#include "worker/engine/batch.h"
#include "worker/group/epoch_comms.h"
#include "worker/group/group.h"
#include "worker/group/rank_executor.h"

namespace dsm::group {

class RankThreads {
 public:
  struct Events {
    std::function<void()> changed;                    // states() has news
    std::function<void(std::uint64_t epoch)> joined;  // all local ranks are connected
    std::function<void(std::uint64_t epoch, engine::Samples)> samples;  // of rank 0
    // A rank failed. kTransient: its communicator broke; other kinds: the step itself failed.
    std::function<void(std::uint64_t epoch, Error)> broken;
  };

  RankThreads(int first_rank, int count, RankLoader loader, Clock& clock, Logger log,
              Events events);
  ~RankThreads();  // aborts what is under way and waits for the threads
  RankThreads(const RankThreads&) = delete;
  RankThreads& operator=(const RankThreads&) = delete;

  // Epochs grow. The one before was abort()ed or never started.
  // `kv_blocks`: for RankExecutor::make_cache(); 0: there is nothing to make.
  void start(std::uint64_t epoch, std::shared_ptr<EpochComms> comms, int kv_blocks = 0);
  // Ignored when `epoch` is not the one under way.
  void submit(std::uint64_t epoch, const std::shared_ptr<const engine::Batch>& batch);
  // Ends the epoch under way, if any: steps are given up, executors keep their weights.
  void abort();

  // All ranks give their devices' memory back, or take it again before they connect. Between
  // epochs; ranks that are still loading do it afterwards. states() says who is asleep.
  void rest(Rest rest);

  // How the GPU of one of the ranks is; kFatal ends the rank as a DeviceError does, also where its
  // thread waits for the GPU and does not come back.
  void device_is(int rank, health::DeviceHealth health);

  std::vector<RankState> states() const;
  bool loaded() const;  // all of them, awake or not
  bool asleep() const;  // any of them
  // Another number whenever a rank has got on in its step. While an epoch is under way.
  std::uint64_t moves() const;
  // How long the slowest thread has been in an epoch that is over; zero when none is.
  std::chrono::nanoseconds stuck_for() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dsm::group
