// A pod that is not the leader: loads its ranks' weights once, connects to the leader for ever (a
// leader that is away is waited for), and executes the batches it is sent.
#pragma once

#include <memory>

#include "base/clock.h"
#include "base/log.h"
#include "worker/group/adapters.h"
#include "worker/group/group.h"
#include "worker/group/rank_executor.h"

namespace dsm::group {

class FollowerGroup {
 public:
  // `options` are validate()d, pod_index > 0. `clock` outlives the group. Loading and connecting
  // start at once, on threads of their own. `adapters` are kept as the leader wants them; null: it
  // may not want any.
  FollowerGroup(const GroupOptions& options, RankLoader loader, Clock& clock, Logger log,
                std::shared_ptr<HeldAdapters> adapters = nullptr);
  ~FollowerGroup();  // leaves the group and stops all threads
  FollowerGroup(const FollowerGroup&) = delete;
  FollowerGroup& operator=(const FollowerGroup&) = delete;

  // Any thread.
  GroupState state() const;
  // How the GPU of a rank of this pod is, see RankThreads. The leader is told, too.
  void device_is(int rank, health::DeviceHealth health);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dsm::group
