// The group as its leader sees it, and the Runner that the engine drives. With one pod
// (tensor_parallel == ranks_per_pod) there are no sockets: all ranks are threads of this process.
//
// Runner's calls come from the engine thread; everything else may be called from any thread.
// Followers, batches and heartbeats go over the control port; tensors between ranks go over the
// epoch's communicators. Loss of a pod, a rank that hangs longer than a step may take, or an error
// on any rank ends the epoch for all.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/log.h"
#include "base/result.h"
#include "worker/engine/runner.h"
#include "worker/group/adapters.h"
#include "worker/group/group.h"
#include "worker/group/rank_executor.h"

namespace dsm::group {

class LeaderGroup final : public engine::Runner {
 public:
  // `options` are validate()d, pod_index is 0. `clock` outlives the group. Loading starts at once.
  // The other pods are made to have what is in `adapters`; null: they are not told of any.
  LeaderGroup(const GroupOptions& options, RankLoader loader, Clock& clock, Logger log,
              std::shared_ptr<SharedAdapters> adapters = nullptr);
  ~LeaderGroup()
      override;  // ends the epoch and stops all threads; the followers wait for the next leader
  LeaderGroup(const LeaderGroup&) = delete;
  LeaderGroup& operator=(const LeaderGroup&) = delete;

  // Opens the control port (nothing to do with one pod). Call once.
  Status start();
  std::uint16_t control_port() const;
  GroupState state() const;
  // How the GPU of a rank of this pod is, see RankThreads.
  void device_is(int rank, health::DeviceHealth health);

  Status submit(engine::Batch batch) override;
  Result<std::optional<engine::Samples>> poll(TimePoint deadline) override;
  bool recover(TimePoint deadline) override;
  void sleep(bool asleep) override;
  // All pods are told; no epoch begins any more, and the state is kFailed with reason ProbeFailed.
  void condemn(std::string why) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dsm::group
