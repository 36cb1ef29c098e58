// What a group does with a batch on one rank: the seam between the group (threads, sockets, epochs)
// and the model. Real: worker/model_executor.h; tests: arithmetic.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/device_error.h"
#include "base/result.h"
#include "worker/comm/communicator.h"
#include "worker/engine/batch.h"

namespace dsm::group {

class RankExecutor {
 public:
  virtual ~RankExecutor() = default;
  // The ranks of an epoch have met, and this one has executed nothing in it yet. Collective. Called
  // on the rank's own thread; throws as execute().
  virtual void join(comm::Communicator& /*comm*/) {}
  // Runs one step on this rank. Rank 0 returns a sample per row with logits, in order; what
  // other ranks return is ignored. Called on the rank's own thread. Throws comm::CommError when the
  // group is broken and DeviceError; any other exception counts as a failed step.
  virtual engine::Samples execute(const engine::Batch& batch, comm::Communicator& comm) = 0;

  // Another number whenever a step on this rank has got on; 0: that is not known. Called on any
  // thread.
  virtual std::uint64_t moves() const { return 0; }

  // How many KV blocks this rank has room for, or has made, where the ranks are to agree on a
  // number; 0: it was given to all of them.
  virtual int kv_room() const { return 0; }
  // Makes the cache, with the number that all have agreed on. Called before the ranks connect, in
  // each epoch; a later number is not larger, and the cache stays as it is. Throws DeviceError.
  virtual void make_cache(int /*blocks*/) {}

  // Gives the memory of its device back to others, and takes it again; the cache is empty then.
  // Called in turn, between epochs, on the rank's own thread. Throw DeviceError.
  virtual void sleep() {}
  virtual void wake() {}
};

// Bytes of weights that are in place, and how many there will be.
using LoadProgress = std::function<void(std::uint64_t loaded, std::uint64_t total)>;

// Makes the executor of one rank: reads its weights. kExhausted is a DeviceError, as
// is one that is thrown. Called on the rank's own thread, for all ranks of a process at the same
// time.
using RankLoader =
    std::function<Result<std::unique_ptr<RankExecutor>>(int rank, const LoadProgress& progress)>;

}  // namespace dsm::group
